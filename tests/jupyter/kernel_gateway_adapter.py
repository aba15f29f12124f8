"""Fixtures with which Jupyter Kernel Gateway's own tests ask a gateway of ours. Loaded by pytest as a plugin.

The tests stay as they are published. Which gateway it is, the environment says: `GATEWAY_URL` and `GATEWAY_TOKEN`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

_URL = os.environ["GATEWAY_URL"]
_TIMEOUT_S = 60

Fetch = Callable[..., Awaitable[HTTPResponse]]


class _App:
    """Stands for the server's application: some tests change its settings. A tenant of ours may have one kernel."""

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}


@pytest.fixture
def jp_web_app() -> _App:
    return _App()


@pytest.fixture
def jp_argv() -> list[str]:
    return []


@pytest.fixture
def jp_http_port() -> int:
    return int(_URL.rpartition(":")[2])


@pytest.fixture
def jp_base_url() -> str:
    return "/"


@pytest_asyncio.fixture
async def jp_fetch() -> AsyncIterator[Fetch]:
    client = AsyncHTTPClient(force_instance=True)

    async def fetch(*parts: str, headers: dict[str, str] | None = None, **options: Any) -> HTTPResponse:
        request = _request("/".join((_URL, *parts)), headers, **options)
        return await client.fetch(request)

    yield fetch
    for kernel in json.loads((await fetch("api", "kernels")).body):
        await fetch("api", "kernels", kernel["id"], method="DELETE")
    client.close()


@pytest.fixture
def jp_ws_fetch() -> Callable[..., Awaitable[WebSocketClientConnection]]:
    async def fetch(*parts: str, headers: dict[str, str] | None = None) -> WebSocketClientConnection:
        url = "/".join((_URL.replace("http", "ws", 1), *parts))
        return await websocket_connect(_request(url, headers))

    return fetch


def _request(url: str, headers: dict[str, str] | None, **options: Any) -> HTTPRequest:
    params = options.pop("params", None)
    sent = {"Authorization": f"token {os.environ['GATEWAY_TOKEN']}"} | (headers or {})
    more = {"allow_nonstandard_methods": True, "request_timeout": _TIMEOUT_S, "connect_timeout": _TIMEOUT_S}
    return HTTPRequest(f"{url}?{urlencode(params)}" if params else url, headers=sent, **(more | options))
