"""What a cell came to while no gateway was there: asking its kernel (`sandbox/iopub.py`, `repeat_cell`)."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from kernel_pool.cell import Run
from kernel_pool.channels import Channels, Incoming, Listener, decode
from kernel_pool.types import CellUnknown, KernelPoolError

_MAX_BYTES = 2**53


class _Begin(msgspec.Struct):
    msg_id: str = ""
    #: Of the first message that the kernel still has: see `sandbox/backlog.py`.
    position: int = 0


class _Kept(msgspec.Struct):
    """Content of resume_reply."""

    msg_id: str = ""
    executing: bool = False
    dropped_bytes: int = 0
    replied: bool = False
    reply: dict[str, object] | None = None


async def catch_up(channels: Channels, msg_id: str, run: Run) -> None:
    """Bring into `run` what was said of the cell; if it is over, until its end.

    Raises CellUnknown when the kernel's latest cell is another, KernelPoolError when the kernel has ended.
    """
    await channels.subscribed()
    kept = await _ask(channels, msg_id, run)
    if kept.msg_id != msg_id:
        # It may wait behind another cell. Requests are answered in order.
        await channels.request("shell", "kernel_info_request", {})
        kept = await _ask(channels, msg_id, run)
    if kept.msg_id != msg_id:
        raise CellUnknown("the kernel does not know this cell: it never arrived, or another has run since")
    if kept.dropped_bytes > 0:
        run.skip(min(kept.dropped_bytes, _MAX_BYTES))
    if kept.replied:
        _take_reply(kept, run)
    if not kept.executing:
        await run.ended


async def reply_again(channels: Channels, msg_id: str, run: Run, timeout_s: float) -> None:
    """The cell is over, and its reply went to a gateway before: ask for that alone."""
    run.hold()
    with contextlib.suppress(TimeoutError, KernelPoolError):
        async with asyncio.timeout(timeout_s):
            kept = await _ask(channels, "", run)
            if kept.msg_id == msg_id and kept.replied:
                _take_reply(kept, run)


async def overtake(channels: Channels, run: Run) -> None:
    """For a kernel that keeps nothing: what it answers after the cell tells that the cell is over."""
    await channels.request("shell", "kernel_info_request", {})
    run.lose("the cell ended while no gateway was there, and this kind of kernel does not keep what it said")


async def _ask(channels: Channels, msg_id: str, run: Run) -> _Kept:
    """Have all that the latest cell said sent again; it counts if it is the cell `msg_id`."""
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[_Kept] = loop.create_future()
    begun: asyncio.Future[None] = loop.create_future()

    def receive(incoming: Incoming) -> None:
        if incoming.channel == "control" and not reply.done():
            try:
                reply.set_result(msgspec.json.decode(incoming.content, type=_Kept))
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
                reply.set_exception(KernelPoolError(f"the kernel's resume_reply is not one: {error}"))
        elif incoming.channel == "iopub" and incoming.msg_type == "resume_begin":
            begin = decode(incoming.content, _Begin)
            if begin is not None and begin.msg_id == msg_id:
                run.open(max(0, min(begin.position, _MAX_BYTES)))
            if not begun.done():
                begun.set_result(None)

    with channels.listening(asked := channels.new_id(), Listener(receive)):
        channels.send("control", "resume_request", {}, msg_id=asked)
        await asyncio.wait((reply, channels.closed), return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            raise KernelPoolError(f"no reply to resume_request: {channels.closed.result()}")
        if reply.result().msg_id == msg_id:
            # the reply overtakes what the cell said: that may still wait to be read
            await asyncio.wait((begun, channels.closed), return_when=asyncio.FIRST_COMPLETED)
    return reply.result()


def _take_reply(kept: _Kept, run: Run) -> None:
    run.reply(None if kept.reply is None else msgspec.json.encode(kept.reply))
