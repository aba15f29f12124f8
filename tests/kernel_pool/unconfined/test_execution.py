"""Deadlines, floods, interrupts and deaths: a cell always comes to a result, and says which."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import nbformat
import pytest
from plain_kernels import PlainKernel, text_of

from kernel_pool.types import Exit, ExitReason, Limits

BUSY_IN_AWAIT = "async def f():\n    while True: pass\nawait f()"
AWAITS_BUSY_TASK = "import asyncio\nasync def f():\n    while True: pass\nawait asyncio.create_task(f())"


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "while True: pass",
        "import asyncio; await asyncio.sleep(60)",
        BUSY_IN_AWAIT,
        AWAITS_BUSY_TASK,
        "!sleep 60",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "while True: print('x' * 100)",
        "while True: display(1)",
        "import numpy as np\nwhile True: np.ones((300, 300)) @ np.ones((300, 300))",
    ],
)
async def test_a_cell_past_its_deadline_is_interrupted_and_the_state_kept(kernel: PlainKernel, code: str) -> None:
    await kernel.run("kept = 1")
    result = await kernel.run(code, deadline_s=0.3, grace_s=20)
    assert (result.status, result.state_lost) == ("interrupted", False)
    assert result.reason == "the cell ran longer than its 0.3 s and was interrupted"
    assert await kernel.text("kept") == "1"


async def test_a_cell_that_does_not_stop_costs_the_kernel(kernel: PlainKernel) -> None:
    code = "import time\nprint('begun')\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass"
    result = await kernel.run(code, deadline_s=0.3, grace_s=0.5)
    assert (result.status, result.state_lost) == ("dead", True)
    assert result.exit is not None
    assert result.exit.reason is ExitReason.DEADLINE
    assert result.reason.endswith("the kernel's state is lost")
    assert text_of(result) == "begun\n"


async def test_code_that_catches_one_interrupt_is_interrupted_again(kernel: PlainKernel) -> None:
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(60)"
    assert (await kernel.run(code, deadline_s=0.2, grace_s=20)).status == "interrupted"


async def test_an_interrupt_on_request_is_told_from_an_error(kernel: PlainKernel) -> None:
    begun = asyncio.Event()
    cell = asyncio.create_task(kernel.run("print('on'); import time; time.sleep(60)", on_output=lambda _: begun.set()))
    await begun.wait()
    assert await kernel.channels.interrupt()
    result = await cell
    assert (result.status, result.reason) == ("interrupted", "the cell was interrupted on request")
    raised = await kernel.run("raise KeyboardInterrupt")
    assert raised.status == "error"


async def test_interrupts_between_cells_hit_nothing(kernel: PlainKernel) -> None:
    for _ in range(5):
        assert await kernel.channels.interrupt()
        assert await kernel.text("1 + 1") == "2"


async def test_interrupts_in_the_middle_of_output_leave_it_readable(kernel: PlainKernel) -> None:
    """An interrupt must not cut a message in two."""
    for code in ("while True: print('x' * 70_000)", "while True: display('x' * 10)") * 5:
        assert (await kernel.run(code, deadline_s=0.1, grace_s=20)).status == "interrupted"
    assert kernel.channels.refused == 0
    assert await kernel.text("1 + 1") == "2"


async def test_output_beyond_the_limit_is_counted_and_dropped(kernel: PlainKernel) -> None:
    result = await kernel.run("print('x' * 3_000_000)\n'the value'", limits=Limits(output_bytes=1_000_000))
    assert result.status == "ok"
    # Each output is charged 1 KiB beyond its bytes.
    assert result.outputs[0]["text"] == "x" * (1_000_000 - 1024)
    assert result.outputs[1]["data"] == {"text/plain": "'the value'"}
    assert result.output_bytes > 3_000_000
    assert result.dropped_bytes == pytest.approx(2_000_000, rel=0.01)


async def test_a_flood_is_interrupted(kernel: PlainKernel) -> None:
    limits = Limits(output_bytes=100_000, output_flood_bytes=10_000_000)
    result = await kernel.run("while True: print('x' * 1000)", limits=limits, grace_s=20)
    assert (result.status, result.state_lost) == ("interrupted", False)
    assert "MiB of output" in result.reason
    assert await kernel.text("1 + 1") == "2"


async def test_a_flood_that_does_not_stop_costs_the_kernel(kernel: PlainKernel) -> None:
    code = "while True:\n    try: print('x' * 1000)\n    except KeyboardInterrupt: pass"
    limits = Limits(output_bytes=100_000, output_flood_bytes=10_000_000)
    result = await kernel.run(code, limits=limits, grace_s=0.5)
    assert result.exit is not None
    assert result.exit.reason is ExitReason.OUTPUT


async def test_many_small_outputs_are_bounded_too(kernel: PlainKernel) -> None:
    result = await kernel.run("for i in range(2000): display(i)", limits=Limits(output_bytes=500 * 1024))
    assert result.status == "ok"
    assert 100 < len(result.outputs) < 500
    assert result.dropped_bytes > 0


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os._exit(3)",
    ],
)
async def test_a_kernel_that_dies_in_a_cell_is_told_with_its_last_output(kernel: PlainKernel, code: str) -> None:
    result = await kernel.run(f"import time; print('last words', flush=True); time.sleep(0.2); {code}")
    assert (result.status, result.state_lost) == ("dead", True)
    assert result.exit == Exit(ExitReason.CRASH, "the process ended")
    assert text_of(result).startswith("last words")


async def test_a_kernel_killed_from_outside_ends_the_cell(kernel: PlainKernel) -> None:
    cell = asyncio.create_task(kernel.run("import time; time.sleep(60)"))
    await asyncio.sleep(0.1)
    os.kill(kernel.pid, signal.SIGKILL)
    assert (await cell).status == "dead"


async def test_a_cell_sent_to_a_dead_kernel_is_dead(kernel: PlainKernel) -> None:
    await kernel.kill(Exit(ExitReason.MEMORY, "over 1 MiB"))
    result = await kernel.run("1")
    assert (result.status, result.exit) == ("dead", Exit(ExitReason.MEMORY, "over 1 MiB"))


async def test_a_kernel_that_closes_its_channels_is_killed(kernel: PlainKernel) -> None:
    result = await kernel.run("import os\nos.closerange(3, 100)\nwhile True: pass", deadline_s=60)
    assert result.status == "dead"
    assert kernel.exited.done()


async def test_a_stopped_kernel_is_killed_at_its_deadline(kernel: PlainKernel) -> None:
    os.kill(kernel.pid, signal.SIGSTOP)
    result = await kernel.run("1", deadline_s=0.2, grace_s=0.3)
    assert result.exit is not None
    assert result.exit.reason is ExitReason.DEADLINE


async def test_outputs_are_valid_nbformat(kernel: PlainKernel) -> None:
    code = """
import sys
print('a'); print('b', file=sys.stderr); display({'image/png': b'x', 'text/plain': 'p'}, raw=True)
1 / 0"""
    result = await kernel.run(code)
    cell = nbformat.v4.new_code_cell(code, outputs=[dict(o) for o in result.outputs])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    assert len(result.outputs) == 4


async def test_outputs_are_told_as_they_come(kernel: PlainKernel) -> None:
    told: list[Any] = []
    code = """
from IPython.display import clear_output
print('a'); h = display(1, display_id='d'); h.update(2); clear_output()
3"""
    await kernel.run(code, on_output=told.append)
    assert [event["output_type"] for event in told] == [
        *("stream", "display_data", "update_display_data", "clear_output", "execute_result")
    ]
    assert told[1]["transient"] == told[2]["transient"] == {"display_id": "d"}


async def test_a_cancelled_wait_leaves_the_kernel_usable(kernel: PlainKernel) -> None:
    cell = asyncio.create_task(kernel.run("import time; time.sleep(0.3)"))
    await asyncio.sleep(0.1)
    cell.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cell
    assert await kernel.text("1 + 1") == "2"
