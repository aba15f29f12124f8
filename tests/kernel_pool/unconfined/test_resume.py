"""A cell whose gateway went away: what it says is kept, and the next gateway gets all of it, once and in order."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from plain_kernels import PlainKernel, text_of

from kernel_pool.channels import Channels
from kernel_pool.execution import execute, resume
from kernel_pool.types import CellResult, CellUnknown, ExitReason, Limits

CELL = "cell-1"


async def leave(kernel: PlainKernel, code: str, *, until: str | None = None) -> PlainKernel:
    """Have a cell begun by a gateway that goes away, once the text `until` was seen; the kernel without it."""
    seen = asyncio.Event()
    text = ""

    def look(event: Mapping[str, Any]) -> None:
        nonlocal text
        text += event.get("text", "")
        if until is not None and until in text:
            seen.set()

    running = asyncio.create_task(
        execute(
            kernel.channels,
            code,
            deadline_s=60,
            interrupt_grace_s=5,
            limits=Limits(),
            interrupt=kernel.channels.interrupt,
            kill=kernel.kill,
            exited=kernel.exited,
            on_output=look,
            msg_id=CELL,
            user_expressions={"two": "1 + 1"},
        )
    )
    if until is not None:
        await asyncio.wait_for(seen.wait(), 30)
    else:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)  # the socket has the request
    running.cancel()
    await kernel.channels.close()
    return kernel


async def come_back(kernel: PlainKernel) -> PlainKernel:
    channels = Channels(kernel.folder, kernel.key)
    await channels.open()
    # the fixture closes what it opened
    kernel.channels = channels
    return kernel


async def go_on(kernel: PlainKernel, **changes: Any) -> CellResult:
    options: dict[str, Any] = {"deadline_s": 60, "interrupt_grace_s": 5, "limits": Limits(), **changes}
    return await resume(
        kernel.channels,
        CELL,
        interrupt=kernel.channels.interrupt,
        kill=kernel.kill,
        exited=kernel.exited,
        **options,
    )


async def ended(kernel: PlainKernel, path: Path) -> None:
    """Wait until the cell has reached its last line, which touches a file."""
    while not path.exists():
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)


async def test_a_cell_that_ended_meanwhile_is_told_whole(kernel: PlainKernel) -> None:
    done = kernel.folder / "done"
    code = (
        f"import time; time.sleep(0.3)\nfor i in range(100): print(i)\ndisplay('shown')\nopen('{done}', 'w').close(); 7"
    )
    await leave(kernel, code)
    await ended(kernel, done)
    await come_back(kernel)
    result = await go_on(kernel)
    assert (result.status, result.reason, result.dropped_bytes) == ("ok", "", 0)
    assert text_of(result) == "".join(f"{i}\n" for i in range(100)) + "'shown'7"
    assert result.user_expressions == {"two": "2"}
    assert result.execution_count == 1
    # and again, for a gateway that was killed twice
    await kernel.channels.close()
    await come_back(kernel)
    again = await go_on(kernel)
    assert (again.outputs, again.status) == (result.outputs, "ok")
    assert await kernel.text("i") == "99"


async def test_a_cell_that_runs_goes_on_without_a_gap_or_a_double(kernel: PlainKernel) -> None:
    code = "import time\nfor i in range(60):\n    print(i, flush=True)\n    time.sleep(0.02)"
    await leave(kernel, code, until="7\n")
    await asyncio.sleep(0.3)
    await come_back(kernel)
    events: list[str] = []
    result = await go_on(kernel, on_output=lambda event: events.append(event["text"]))
    assert text_of(result) == "".join(f"{i}\n" for i in range(60)) == "".join(events)
    assert (result.status, result.state_lost) == ("ok", False)


@pytest.mark.parametrize("code", ["print('x' * 5_000_000)", "for i in range(50): print(str(i) * 50_000, flush=True)"])
async def test_a_gateway_that_dies_in_the_middle_of_much_output(kernel: PlainKernel, code: str) -> None:
    expected = "x" * 5_000_000 + "\n" if "5_000_000" in code else "".join(str(i) * 50_000 + "\n" for i in range(50))
    await leave(kernel, code, until=expected[:1])
    await come_back(kernel)
    result = await go_on(kernel)
    assert text_of(result) == expected
    assert result.dropped_bytes == 0


async def test_an_error_is_told_as_one(kernel: PlainKernel) -> None:
    done = kernel.folder / "done"
    await leave(kernel, f"import time; time.sleep(0.2)\nprint('on')\nopen('{done}', 'w').close()\n1 / 0")
    await ended(kernel, done)
    await come_back(kernel)
    result = await go_on(kernel)
    assert result.status == "error"
    assert result.error is not None
    assert result.error.name == "ZeroDivisionError"
    assert [output["output_type"] for output in result.outputs] == ["stream", "error"]


async def test_a_flood_without_a_gateway_waits_for_the_next_one(kernel: PlainKernel) -> None:
    done = kernel.folder / "done"
    code = f"for i in range(130): print(f'{{i:06}}' + 'x' * 999_993, flush=True)\nopen('{done}', 'w').close()\n'end'"
    before = _resident_bytes(kernel.pid)
    await leave(kernel, code, until="000002")
    await _still(kernel.pid)
    assert _resident_bytes(kernel.pid) - before < 100 * 2**20
    assert not done.exists()
    await come_back(kernel)
    result = await go_on(kernel, limits=dataclasses.replace(Limits(), output_bytes=2**28, output_flood_bytes=2**30))
    assert (result.status, result.dropped_bytes) == ("ok", 0)
    assert text_of(result) == "".join(f"{i:06}{'x' * 999_993}\n" for i in range(130)) + "'end'"


async def test_one_that_waits_can_be_interrupted(kernel: PlainKernel) -> None:
    await leave(kernel, "print('on')\nwhile True: print('x' * 1_000_000)", until="on")
    await _still(kernel.pid)
    await come_back(kernel)
    await kernel.channels.interrupt()
    result = await go_on(kernel)
    assert result.status == "error"
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"


async def test_a_process_that_floods_waits_as_well(kernel: PlainKernel) -> None:
    count, shell = 40, "head -c 999999 /dev/zero | tr '\\\\0' x"
    code = f"""
import subprocess
print("on", flush=True)
ran = subprocess.run("for i in $(seq 1 {count}); do {shell}; echo; done", shell=True)
"""
    await leave(kernel, code, until="on")
    await _still(kernel.pid)
    await come_back(kernel)
    result = await go_on(kernel, limits=dataclasses.replace(Limits(), output_bytes=2**28, output_flood_bytes=2**30))
    assert (result.status, result.dropped_bytes) == ("ok", 0)
    assert text_of(result).count("x") == count * 999_999


async def test_what_is_lost_is_said_in_its_place(kernel: PlainKernel) -> None:
    """A display of 15 MiB pushes out the one before, which its gateway has had; the next one starts from nothing."""
    code = """
for i in range(3): display({"text/plain": f"{i}" * 15_000_000}, raw=True)
print("end")
"""
    await leave(kernel, code, until="end")
    await come_back(kernel)
    result = await go_on(kernel, limits=dataclasses.replace(Limits(), output_bytes=2**28, output_flood_bytes=2**30))
    lost = result.outputs[0]["text"]
    assert f"[{result.dropped_bytes:,} bytes of output are lost here" in lost
    assert result.dropped_bytes > 30_000_000
    assert [each["output_type"] for each in result.outputs] == ["stream", "display_data", "stream"]
    assert text_of(result).endswith("end\n")


async def test_a_flood_that_goes_on_is_stopped_by_the_next_gateway(kernel: PlainKernel) -> None:
    await leave(kernel, "while True: print('x' * 1_000_000)", until="x")
    await asyncio.sleep(0.5)
    await come_back(kernel)
    limits = dataclasses.replace(Limits(), output_flood_bytes=20 * 2**20)
    result = await go_on(kernel, limits=limits, interrupt_grace_s=20)
    assert result.status == "interrupted"
    assert result.reason.startswith("the cell wrote more than 20 MiB of output")


async def test_a_talkative_cell_keeps_every_word(kernel: PlainKernel) -> None:
    done = kernel.folder / "done"
    code = f"import sys\nfor i in range(40_000): print(i, end=' ', flush=True)\nopen('{done}', 'w').close()"
    await leave(kernel, code, until="5 ")
    await ended(kernel, done)
    await come_back(kernel)
    result = await go_on(kernel)
    assert text_of(result) == "".join(f"{i} " for i in range(40_000))
    assert result.dropped_bytes == 0


async def test_the_deadline_is_held_by_the_next_gateway(kernel: PlainKernel) -> None:
    await leave(kernel, "kept = 1\nprint('on')\nwhile True: pass", until="on")
    await come_back(kernel)
    result = await go_on(kernel, deadline_s=0.3, allowed_s=30)
    assert (result.status, result.reason) == ("interrupted", "the cell ran longer than its 30 s and was interrupted")
    assert text_of(result).startswith("on\n")
    assert await kernel.text("kept") == "1"


async def test_a_deadline_that_passed_meanwhile_does_not_spoil_what_ended_in_time(kernel: PlainKernel) -> None:
    done = kernel.folder / "done"
    await leave(kernel, f"import time; time.sleep(0.2); open('{done}', 'w').close(); 'in time'")
    await ended(kernel, done)
    await come_back(kernel)
    result = await go_on(kernel, deadline_s=-5, allowed_s=30)
    assert (result.status, text_of(result)) == ("ok", "'in time'")


async def test_a_cell_that_does_not_stop_costs_the_kernel(kernel: PlainKernel) -> None:
    code = "import time\nprint('on')\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass"
    await leave(kernel, code, until="on")
    await come_back(kernel)
    result = await go_on(kernel, deadline_s=-1, allowed_s=30, interrupt_grace_s=0.5)
    assert result.status == "dead"
    assert result.exit is not None
    assert result.exit.reason is ExitReason.DEADLINE
    assert text_of(result) == "on\n"


async def test_a_cell_that_never_arrived_or_is_long_gone_is_unknown(kernel: PlainKernel) -> None:
    with pytest.raises(CellUnknown):
        await go_on(kernel)
    await leave(kernel, "1")
    await come_back(kernel)
    await kernel.run("2")
    with pytest.raises(CellUnknown, match="another has run since"):
        await go_on(kernel)


async def test_a_cell_that_waits_behind_another_is_found(kernel: PlainKernel) -> None:
    kernel.channels.send("shell", "execute_request", {"code": "import time; time.sleep(1)"})
    await leave(kernel, "print('second')\n2")
    await come_back(kernel)
    result = await go_on(kernel)
    assert (result.status, text_of(result)) == ("ok", "second\n2")


async def test_a_kernel_that_keeps_nothing_gives_what_comes_from_now_on(kernel: PlainKernel) -> None:
    code = "import time\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.05)"
    await leave(kernel, code, until="5\n")
    await come_back(kernel)
    result = await go_on(kernel, keeps=False)
    assert (result.status, result.reason) == ("ok", "")
    assert text_of(result).endswith("38\n39\n")
    gone = await go_on(kernel, keeps=False)
    assert gone.status == "error"
    assert "does not keep what it said" in gone.reason


async def _still(pid: int) -> None:
    """Wait until it does nothing any more."""
    quiet, before = 0, ""
    while quiet < 4:
        await asyncio.sleep(0.2)
        ticks = " ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15])
        quiet, before = (quiet + 1 if ticks == before else 0), ticks


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel has ended")


async def test_a_cell_that_arrived_twice_runs_once(kernel: PlainKernel) -> None:
    options: dict[str, Any] = {"deadline_s": 60, "interrupt_grace_s": 5, "limits": Limits(), "msg_id": CELL}
    ways = {"interrupt": kernel.channels.interrupt, "kill": kernel.kill, "exited": kernel.exited}
    kernel.channels.send("shell", "execute_request", {"code": "runs = 0", "silent": False}, msg_id="before")
    cell = "import time; time.sleep(0.3); runs += 1; print(runs)"
    content = {"code": cell, "silent": False, "store_history": True, "user_expressions": {}, "stop_on_error": True}
    # what the gateway that died had sent, and what the next one sends because the kernel does not know of it yet
    kernel.channels.send("shell", "execute_request", content, msg_id=CELL)
    result = await execute(kernel.channels, cell, **options, **ways)
    after = await execute(kernel.channels, "print(runs)", **{**options, "msg_id": "after"}, **ways)
    assert (text_of(result), text_of(after)) == ("1\n", "1\n")


async def test_cells_of_clients_that_count_alike_all_run(kernel: PlainKernel) -> None:
    """Clients of one jupyter_client manager share a session and count from 0: their ids are not of one cell alone."""
    for code in ("runs = 1", "runs += 1"):
        kernel.channels.send("shell", "execute_request", {"code": code, "silent": False}, msg_id="session_7_1")
    assert await kernel.text("runs") == "2"
