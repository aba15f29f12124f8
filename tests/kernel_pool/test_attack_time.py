"""From inside a cell: run on when told to stop. The deadline holds, and nothing outlives its kernel."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest
from attack import Arena, output

from kernel_pool.types import ExitReason

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: How to be deaf to an interrupt.
DEAF = {
    "ignored": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "caught": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "in-native-code": "ctypes.PyDLL(None).sleep(600)",
    "stopped": "import signal, time; os.kill(os.getpid(), signal.SIGSTOP)\nos.kill(0, signal.SIGSTOP)\ntime.sleep(600)",
    "control-thread-killed": "import time; get_ipython().kernel.control_thread.stop(); time.sleep(600)",
}


@pytest.mark.parametrize("how", DEAF)
async def test_who_does_not_listen_is_killed(arena: Arena, how: str) -> None:
    async with arena.attacker() as kernel:
        result = await kernel.execute(DEAF[how], deadline_s=1)
        assert result.status in ("dead", "interrupted")
        if result.status == "dead":
            assert result.exit is not None
            assert result.exit.reason is ExitReason.DEADLINE
            assert "1 s" in result.exit.detail


@pytest.mark.parametrize(
    "code",
    [
        "os.execv('/bin/sleep', ['sleep', '600'])",
        "os.closerange(0, 256); import time; time.sleep(600)",
        "get_ipython().kernel.shell_socket.close(); import time; time.sleep(600)",
    ],
    ids=["becomes-another-program", "hangs-up", "closes-its-channel"],
)
async def test_who_leaves_its_channels_is_given_up(arena: Arena, code: str) -> None:
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=2)
        assert result.status in ("dead", "interrupted", "error")
        assert result.status == "dead" or result.reason or result.error


async def test_no_daemon_outlives_its_kernel(arena: Arena) -> None:
    """Away from the cell by two forks, a session and a group of its own, deaf to every signal that one may ignore."""
    mark = f"{secrets.randbelow(10**9) + 10**9}.5"
    code = f"""
import signal
def daemon():
    try:
        os.setsid()
        if os.fork() == 0:
            for number in (1, 2, 3, 13, 15):
                signal.signal(number, signal.SIG_IGN)
            os.execvp('sleep', ['sleep', {mark!r}])
    finally:
        os._exit(0)
try:
    for _ in range(64):
        child = os.fork()
        if child == 0:
            daemon()
        os.waitpid(child, 0)
except OSError:
    pass
import time; time.sleep(0.5)
print(sum({mark!r} in open(f'/proc/{{pid}}/cmdline').read() for pid in os.listdir('/proc') if pid.isdigit()))
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=60)
        if result.status != "dead":
            assert int(output(result)) > 3
            assert arena.gvisor or seen_outside(mark) > 3
    for _ in range(50):
        if not seen_outside(mark):
            break
        await asyncio.sleep(0.1)
    assert seen_outside(mark) == 0


def seen_outside(mark: str) -> int:
    count = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                count += mark.encode() in (folder / "cmdline").read_bytes()
            except OSError:
                continue
    return count


@pytest.mark.parametrize(
    "code",
    [
        "while True: print('x' * 100_000)",
        "while True: os.write(1, b'x' * 65536)",
        "line = b'x' * 65536\nwhile True: call('write', 2, line, 65536)",
        "from IPython.display import display\nwhile True: display({'text/plain': 'x' * 100_000}, raw=True)",
    ],
    ids=["print", "descriptor-1", "native-code", "display"],
)
async def test_a_flood_of_output_is_stopped_and_little_is_kept(arena: Arena, code: str) -> None:
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=60)
        assert result.status in ("interrupted", "dead")
        assert "wrote more than 4 MiB" in result.reason
        assert sum(len(str(item)) for item in result.outputs) < 2 * 1024 * 1024
        assert result.dropped_bytes > 0
        if result.status == "interrupted":
            assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
