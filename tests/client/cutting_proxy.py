"""A way to a gateway that breaks: connections that end in the middle of an answer, or are not taken at all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class CuttingProxy:
    """Each connection gives the client so many bytes as `budgets` has first, and breaks; None, or none left: all."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.budgets: list[int | None] = []
        #: Requests' first lines, in order.
        self.asked: list[str] = []
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        budget = self.budgets.pop(0) if self.budgets else None
        if budget == 0:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)

        async def forth() -> None:
            while data := await reader.read(65536):
                if data[:4] in (b"GET ", b"POST", b"PUT ", b"DELE"):
                    self.asked.append(data.split(b" HTTP", 1)[0].decode())
                back.write(data)
            back.write_eof()

        forwarding = asyncio.create_task(forth())
        with contextlib.suppress(ConnectionError):
            while data := await there.read(65536 if budget is None else min(65536, budget)):
                writer.write(data)
                await writer.drain()
                budget = None if budget is None else budget - len(data)
                if budget == 0:
                    break
        forwarding.cancel()
        writer.transport.abort()
        back.transport.abort()


@contextmanager
def cutting_proxy(target: str) -> Iterator[CuttingProxy]:
    """In a thread of its own, for blocking clients."""
    proxy, loop, ready = CuttingProxy(target), asyncio.new_event_loop(), threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await asyncio.Event().wait()

    thread = threading.Thread(target=lambda: _run(loop, main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join(10)


def _run(loop: asyncio.AbstractEventLoop, main: object) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(main)  # type: ignore[arg-type]
    loop.close()
