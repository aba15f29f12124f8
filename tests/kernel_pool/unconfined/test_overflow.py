"""Outputs that are more than memory is to hold go elsewhere, all of them; where that is slow the kernel waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from plain_kernels import PlainKernel, PlainTemplate, plain_kernel

from kernel_pool.types import Limits

LIMITS = Limits(output_bytes=100_000, output_flood_bytes=10**9)


@dataclass
class Elsewhere:
    """Takes outputs; `stuck`: the kernel is to wait from the first one on, until `go_on`."""

    stuck: bool = False
    refuse_after: int = 10**12
    why: str = "it is full"
    texts: list[str] = field(default_factory=list)
    bytes: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    _hold: Callable[[bool], None] = field(default=lambda wait: None)

    def begin(self, hold: Callable[[bool], None]) -> None:
        self._hold = hold
        if self.stuck:
            hold(True)
        self.begun.set()

    def put(self, output: Mapping[str, Any], size: int, position: int) -> bool:
        if self.bytes > self.refuse_after:
            return False
        self.texts.append(output.get("text", ""))
        self.bytes += size
        return True

    def clear(self) -> None:
        self.texts.clear()

    def go_on(self) -> None:
        self._hold(False)


async def test_all_of_it_goes_there_and_the_first_of_it_is_kept(kernel: PlainKernel) -> None:
    elsewhere = Elsewhere()
    result = await kernel.run("for n in range(50_000): print(n)\n7", limits=LIMITS, overflow=elsewhere)
    text = "".join(f"{n}\n" for n in range(50_000))
    assert (result.status, result.dropped_bytes, result.cut) == ("ok", 0, 1)
    assert "".join(elsewhere.texts) == text
    assert result.outputs[0]["text"] == text[: 100_000 - 1024]
    assert result.outputs[1]["data"] == {"text/plain": "7"}


async def test_a_kernel_waits_for_what_is_slow_and_can_be_interrupted(kernel: PlainKernel) -> None:
    elsewhere = Elsewhere(stuck=True)
    code = "done = False\nfor _ in range(200): print('x' * 1_000_000)\ndone = True"
    cell = asyncio.create_task(kernel.run(code, limits=LIMITS, overflow=elsewhere))
    await elsewhere.begun.wait()
    seen = -1
    while seen != elsewhere.bytes:  # what was under way has come
        seen = elsewhere.bytes
        await asyncio.sleep(0.3)
    assert seen < 1_000_000
    await kernel.channels.interrupt()
    result = await cell
    assert (result.status, result.state_lost) == ("interrupted", False)
    elsewhere.go_on()
    assert await kernel.text("done") == "False"


async def test_one_that_waited_goes_on_and_nothing_is_lost(kernel: PlainKernel) -> None:
    elsewhere = Elsewhere(stuck=True)
    code = "for _ in range(50): print('x' * 999_999)"
    cell = asyncio.create_task(kernel.run(code, limits=LIMITS, overflow=elsewhere))
    await elsewhere.begun.wait()
    await asyncio.sleep(2.5)  # longer than an answer may be late
    assert not cell.done()
    elsewhere.go_on()
    result = await cell
    assert (result.status, result.dropped_bytes) == ("ok", 0)
    assert sum(map(len, elsewhere.texts)) == 50_000_000


async def test_other_kernels_do_not_wait(kernel: PlainKernel, template: PlainTemplate) -> None:
    elsewhere = Elsewhere(stuck=True)
    cell = asyncio.create_task(kernel.run("while True: print('x' * 1000)", limits=LIMITS, overflow=elsewhere))
    await elsewhere.begun.wait()
    async with plain_kernel(template) as neighbour:
        for _ in range(5):
            assert await neighbour.text("1 + 1") == "2"
    assert not cell.done()
    await kernel.channels.interrupt()
    assert (await cell).status == "interrupted"


async def test_one_that_is_refused_is_stopped(kernel: PlainKernel) -> None:
    elsewhere = Elsewhere(refuse_after=1_000_000)
    result = await kernel.run("while True: print('x' * 1000)", limits=LIMITS, overflow=elsewhere, grace_s=20)
    assert (result.status, result.reason) == ("interrupted", "it is full and was interrupted")
    assert result.dropped_bytes > 0
    assert result.output_bytes - result.dropped_bytes == pytest.approx(elsewhere.bytes, rel=0.01)
