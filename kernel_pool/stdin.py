"""Input for a cell that asks for it: `input()` and `getpass` of the kernel, answered by whoever runs the cell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from kernel_pool.channels import Channels, Incoming, decode
from kernel_pool.types import KernelPoolError

#: Called with the prompt, and whether the answer is a secret that is not to be shown; gives the answer's line.
Ask = Callable[[str, bool], Awaitable[str]]

_MAX_PROMPT = 64 * 1024
_log = logging.getLogger(__name__)


class _Request(msgspec.Struct):
    prompt: str = ""
    password: bool = False


class Answers:
    """Answers one cell's requests, one at a time: the kernel waits for each. A context, which ends with the cell."""

    def __init__(self, channels: Channels, ask: Ask | None) -> None:
        self._channels = channels
        self._ask = ask
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()

    def beside(self, receive: Callable[[Incoming], None]) -> Callable[[Incoming], None]:
        """For a listener: `receive`, and answers beside it."""
        ask = self._ask
        if ask is None:
            return receive

        def both(incoming: Incoming) -> None:
            receive(incoming)
            if incoming.channel == "stdin" and incoming.msg_type == "input_request":
                self._begin(incoming, ask)

        return both

    def _begin(self, incoming: Incoming, ask: Ask) -> None:
        request = decode(incoming.content, _Request)
        if request is not None and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._answer(request, incoming, ask))

    async def _answer(self, request: _Request, incoming: Incoming, ask: Ask) -> None:
        try:
            value = await ask(request.prompt[:_MAX_PROMPT], request.password)
        except Exception:  # noqa: BLE001  # the boundary to who answers: the cell waits on, until its deadline
            _log.exception("a cell that asked for input got no answer")
            return
        header = decode(incoming.parts[0], dict[str, Any])
        with contextlib.suppress(KernelPoolError):
            self._channels.send("stdin", "input_reply", {"status": "ok", "value": value}, parent=header)
