"""A client of a running gateway, for the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from httpx_sse import SSEError, connect_sse

from gateway.types import Event

_CONNECT_S = 5.0


class ClientError(Exception):
    """The gateway cannot be reached, or refused. The message is for people."""


class GatewayClient:
    """Blocking; one connection. Close it, or use it in `with`."""

    def __init__(self, url: str, token: str, *, read_timeout_s: float | None) -> None:
        """`read_timeout_s`: longest silence of the gateway; None waits for ever."""
        self._url = url
        headers = {"Authorization": f"Bearer {token}"}
        timeout = httpx.Timeout(read_timeout_s, connect=_CONNECT_S)
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False)
        except (httpx.InvalidURL, UnicodeEncodeError):
            raise ClientError(f"{url!r} with this token cannot be asked. Wanted: http://HOST:PORT") from None

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON answer. Raises ClientError."""
        with self._problems():
            response = self._http.post(path, json=body)
            self._check(response)
            return response.json()

    def events(self, path: str, body: dict[str, Any]) -> Iterator[Event]:
        """The events of a request, as they come. Raises ClientError."""
        with self._problems(), connect_sse(self._http, "POST", path, json=body) as source:
            if source.response.is_error:
                source.response.read()
                self._check(source.response)
            for event in source.iter_sse():
                yield Event(event.event, event.json())  # type: ignore[arg-type]

    def _check(self, response: httpx.Response) -> None:
        if not response.is_error:
            return
        try:
            problem = response.json()
            told = [str(problem["message"]), str(problem.get("hint", ""))]
        except (ValueError, KeyError, TypeError):
            told = [f"{self._url} answered {response.status_code}: is it an omniops gateway?"]
        raise ClientError(" ".join(part for part in told if part))

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise ClientError(f"No gateway answers at {self._url}. Start one: omniops serve") from None
        except httpx.TimeoutException:
            raise ClientError(f"The gateway at {self._url} was silent for too long.") from None
        except (httpx.HTTPError, SSEError, json.JSONDecodeError) as error:
            raise ClientError(f"The connection to {self._url} failed: {error}") from None
