"""A cell that lies to the gateway that takes its kernel over: it comes to a result, and costs no more than another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from plain_kernels import PlainKernel, text_of
from test_hostile_kernel import ARMS, peak_growth_mb, reset_peak
from test_resume import CELL, come_back, go_on, leave

from kernel_pool.types import CellUnknown, Limits

#: Takes the place of what answers the next gateway.
TURN = """
import time
def answer(stream, ident, parent, **kept):
    k.session.send(stream, "resume_reply", {"msg_id": "cell-1", "executing": True, **kept}, parent, ident=ident)
def turned(handler):
    k.control_handlers["resume_request"] = handler
"""

LIES = {
    "no answer": "turned(lambda *_: None)",
    "an exception": "turned(lambda *_: 1 / 0)",
    "an answer that is none": "turned(lambda s, i, p: answer(s, i, p, msg_id=[1], dropped_bytes='x'))",
    "more left out than there is": "turned(lambda s, i, p: answer(s, i, p, dropped_bytes=2**63 - 1))",
    "less than nothing left out": "turned(lambda s, i, p: answer(s, i, p, dropped_bytes=-5))",
    "over, but it is not": "turned(lambda s, i, p: answer(s, i, p, executing=False))",
    "a reply that is none": "turned(lambda s, i, p: answer(s, i, p, replied=True, reply={'status': 5, 'x': [[]]}))",
    "a reply of megabytes": "turned(lambda s, i, p: answer(s, i, p, replied=True, reply={'status': 'x' * 10_000_000}))",
    "ten answers": "turned(lambda s, i, p: [answer(s, i, p) for _ in range(10)])",
}


async def taken_over(kernel: PlainKernel, code: str, **options: Any) -> Any:
    """What the next gateway makes of the cell, whose first gateway went away after "begin"."""
    await leave(kernel, f"{ARMS}\n{TURN}\n{code}", until="begin\n")
    await come_back(kernel)
    return await go_on(kernel, **{"deadline_s": 4, "interrupt_grace_s": 1, **options})


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_to_the_next_gateway_costs_the_cell_alone(kernel: PlainKernel, lie: str) -> None:
    result = await taken_over(kernel, f"{LIES[lie]}\nprint('begin', flush=True)\ntime.sleep(1)\nprint('end')")
    assert msgspec.json.encode(result.outputs)
    if result.status != "dead":
        assert await kernel.text("1 + 1") == "2"


async def test_another_cells_id_in_the_answer_gives_nothing_of_that_cell(kernel: PlainKernel) -> None:
    await kernel.run("print('of another cell')")
    with pytest.raises(CellUnknown):
        await taken_over(
            kernel,
            "turned(lambda s, i, p: answer(s, i, p, msg_id='another'))\nprint('begin', flush=True)\ntime.sleep(1)",
        )
    assert await kernel.text("1 + 1") == "2"


async def test_a_flood_of_beginnings_starts_no_count_anew(kernel: PlainKernel) -> None:
    """Each says that what follows is the whole of the cell: the limits count over all of them."""
    flood = """
def flooding(s, i, p):
    mine = json.dumps({"msg_id": p["header"]["msg_id"]}).encode()
    for _ in range(300):
        signed("resume_begin", b'{"msg_id": "cell-1"}', parent=mine)
        signed("stream", b'{"name": "stdout", "text": "' + b"x" * 100_000 + b'"}', parent=b'{"msg_id": "cell-1"}')
    answer(s, i, p)
turned(flooding)
print('begin', flush=True)
time.sleep(3)
"""
    reset_peak()
    result = await taken_over(kernel, flood, limits=Limits(output_bytes=1_000_000, output_flood_bytes=5_000_000))
    assert len(text_of(result)) <= 1_000_000
    assert result.dropped_bytes > 0
    assert peak_growth_mb() < 100


async def test_beginnings_that_nobody_asked_for_change_nothing(kernel: PlainKernel) -> None:
    code = f"""{ARMS}
for _ in range(20_000):
    signed("resume_begin", b'{{"msg_id": "{CELL}"}}')
    signed("resume_begin", b"null")
print("after")"""
    result = await kernel.run(code)
    assert (result.status, text_of(result)) == ("ok", "after\n")
