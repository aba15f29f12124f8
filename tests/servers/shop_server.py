"""Shops on loopback: the demo's double with faults, and recorded answers of a real store."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

#: Recordings are shared with the tests of the shop double.
RECORDINGS = (Path(__file__).with_name("recordings"), Path(__file__).parents[1] / "demo" / "recordings")

#: What a proxy or this server sets anew.
HOP_BY_HOP = {"connection", "transfer-encoding", "date", "server", "content-length"}


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The app on a free port of 127.0.0.1, in a thread of its own; gives its URL."""
    # With the protocol named, asyncio sets TCP_NODELAY; without it each answer waits 40 ms for an acknowledgement.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


#: "before" and "after": the n-th request hangs, not applied or applied, until the client has gone. "lost" and
#: "refused": it is answered with 502, applied or not. A function: answers in the shop's place.
Fault = str | Callable[[Request], Response]


@dataclass
class Faulty:
    """A shop whose n-th request (from 1) since `arm` fails; everything else goes through."""

    app: ASGIApp
    requests: list[str] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)
    _fault: Fault | None = None
    _at: range = range(0)

    def arm(self, fault: Fault | None = None, at: int = 0, times: int = 1) -> None:
        self.requests.clear()
        self.reached.clear()
        self._fault, self._at = fault, range(at, at + times)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/wp-json/"):
            await self.app(scope, receive, send)
            return
        self.requests.append(f"{scope['method']} {scope['path'].removeprefix('/wp-json/wc/v3/')}")
        if self._fault is None or len(self.requests) not in self._at:
            await self.app(scope, receive, send)
        elif callable(self._fault):
            await self._fault(Request(scope))(scope, receive, send)
        else:
            await self._fail(self._fault, scope, receive, send)

    async def _fail(self, fault: str, scope: Scope, receive: Receive, send: Send) -> None:
        if fault in ("after", "lost"):
            await self.app(scope, receive, _nowhere)
        self.reached.set()
        if fault in ("lost", "refused"):
            await Response("<html>Bad gateway</html>", 502, media_type="text/html")(scope, receive, send)
            return
        while (await receive())["type"] != "http.disconnect":
            pass


async def _nowhere(message: MutableMapping[str, Any]) -> None:
    """Where an answer goes that gets lost."""


def recording(name: str) -> dict[str, Any]:
    """A recorded exchange by the beginning of its name, such as "35"."""
    [path] = [path for folder in RECORDINGS for path in folder.glob(f"{name}-*.json")]
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def replaying(answers: dict[str, str], asked: list[str] | None = None) -> ASGIApp:
    """A store that answers "GET orders/38" with the recording of that name; query in the key where it matters.

    What it was asked is noted in `asked`.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        query = [(k, v) for k, v in request.query_params.multi_items() if not k.startswith("oauth_")]
        path = f"{request.method} {request.url.path.removeprefix('/wp-json/wc/v3/')}"
        if asked is not None:
            asked.append(path)
        exact = path + ("?" + "&".join(f"{k}={v}" for k, v in sorted(query)) if query else "")
        recorded = recording(answers.get(exact) or answers[path])["response"]
        response = Response(json.dumps(recorded["json"]), recorded["status"])
        response.raw_headers = [(k.encode(), v.encode()) for k, v in recorded["headers"] if k.lower() not in HOP_BY_HOP]
        await response(scope, receive, send)

    return app
