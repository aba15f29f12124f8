"""A gateway with counting tools in a process of its own, which kills itself at one point of a cell's way.

`main` runs with the arguments POINT NUMBER.

POINT is one of `POINTS` or "none", NUMBER counts from 0 how often it is passed before. Settings come from the
environment. Prints its address when it is ready.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

#: Where it may die, in the order of a cell's way, and when, counted by how often the cell has passed there.
POINTS: dict[str, tuple[int, ...]] = {
    "before its row": (0,),
    "row before sent": (0,),
    "sent": (0,),
    "output": (0, 1, 4, 7),
    "read before kept": (0,),
    "read kept before answered": (0,),
    "read answered before sent to journal": (0,),
    "before journal": (0, 1, 2),
    "journaled": (0, 1, 2, 3),
    "executing before sent upstream": (0, 1, 2),
    "sent upstream before journaled": (0, 1, 2, 3),
    "journaled before answered": (0, 1, 2, 3),
    "answered": (0, 1, 2, 3),
    "reply before transcript": (0,),
    "transcript before row": (0,),
    "row": (0,),
}


class Death:
    """Comes when its point was passed so many times."""

    def __init__(self, point: str, number: int) -> None:
        self._point, self._left = point, number
        #: A cell `doomed` was begun here: what comes of one that was taken over does not count.
        self._armed = False

    def pass_by(self, point: str) -> None:
        if point == self._point and self._armed:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1

    async def observe(self, boundary: str, record: Any) -> None:
        self.pass_by(
            {
                "before": "journaled",
                "sent": "sent upstream before journaled",
                "after": "journaled before answered",
            }[boundary]
        )

    def before(self, owner: Any, name: str, point: str, which: Callable[..., bool] = lambda *_, **__: True) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if which(*args, **kwargs):
                self.pass_by(point)
            return method(*args, **kwargs)

        setattr(owner, name, wrapped)

    def after(self, owner: Any, name: str, point: str, which: Callable[..., bool] = lambda *_, **__: True) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = await method(*args, **kwargs)
            if which(*args, **kwargs):
                self.pass_by(point)
            return result

        setattr(owner, name, wrapped)

    def lie_in_wait(self) -> None:
        from gateway.broker.behind import WriteBehind, _Line
        from gateway.broker.journal import Journal
        from gateway.broker.server import _Connection
        from gateway.cell_run import OutputStream
        from gateway.session_rows import SessionRows
        from gateway.transcripts.store import Transcript
        from kernel_pool.channels import Channels

        def doomed(*args: Any, **kwargs: Any) -> bool:
            """Of the cell `doomed` alone."""
            return "doomed" in args or any(
                getattr(arg, attribute, "") == "doomed" for arg in args for attribute in ("id", "cell")
            )

        def of_cell(channels: Channels, channel: str, msg_type: str, *args: Any, **kwargs: Any) -> bool:
            return msg_type == "execute_request" and (kwargs.get("metadata") or {}).get("cellId") == "doomed"

        def arm(*args: Any, **kwargs: Any) -> bool:
            self._armed = self._armed or doomed(*args, **kwargs)
            return doomed(*args, **kwargs)

        self.before(SessionRows, "begin_cell", "before its row", arm)
        self.after(SessionRows, "begin_cell", "row before sent", doomed)
        send = Channels.send

        def sent(*args: Any, **kwargs: Any) -> Any:
            result = send(*args, **kwargs)
            if of_cell(*args, **kwargs):
                # the socket takes it when the event loop comes to it
                asyncio.get_running_loop().call_later(0.1, self.pass_by, "sent")
            return result

        Channels.send = sent  # type: ignore[method-assign]
        self.before(OutputStream, "put", "output")
        # the row of a read goes another way than those of writes
        self.before(WriteBehind, "put", "read before kept")
        self.after(WriteBehind, "put", "read kept before answered")
        self.before(_Line, "send", "read answered before sent to journal")
        self.before(Journal, "claim", "before journal")
        claim = Journal.claim

        async def claimed(*args: Any, **kwargs: Any) -> Any:
            row = await claim(*args, **kwargs)
            if row.goes_out:
                self.pass_by("executing before sent upstream")
            return row

        Journal.claim = claimed  # type: ignore[method-assign]
        answer = _Connection.send

        def answered(connection: _Connection, *pieces: bytes | memoryview) -> None:
            answer(connection, *pieces)
            self.pass_by("answered")

        _Connection.send = answered  # type: ignore[method-assign]
        self.before(Transcript, "add", "reply before transcript", doomed)
        self.before(SessionRows, "end_cell", "transcript before row", doomed)
        self.after(SessionRows, "end_cell", "row", doomed)


async def run(point: str, number: int) -> None:
    import counting
    import uvicorn

    from gateway import logs
    from gateway.app import create_app
    from gateway.broker.scrub import Scrubber
    from gateway.runtime import open_gateway
    from gateway.serve import _listen, _Server, url_of
    from gateway.settings import load_settings

    settings = load_settings()
    logs.configure("debug", Scrubber(()))
    death = Death(point, number)
    death.lie_in_wait()
    everyday = settings.agent.model_copy(update={"everyday_tools": ()})
    settings = settings.model_copy(update={"agent": everyday})
    listener = _listen(settings.server)
    with listener:
        async with open_gateway(settings, registry=counting.registry(), observers=(death.observe,)) as gateway:
            config = uvicorn.Config(create_app(gateway), lifespan="off", log_config=None, timeout_graceful_shutdown=2)
            server = _Server(config)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, setattr, server, "should_exit", True)
            await gateway.peers.owners.announce(url_of(listener))
            print(url_of(listener), gateway.token, flush=True)
            await server.serve(sockets=[listener])


def main() -> None:
    point, number = sys.argv[1:]
    asyncio.run(run(point, int(number)))
