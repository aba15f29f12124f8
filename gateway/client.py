"""A client of a running gateway, for the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import SSEError, connect_sse

from gateway.data_dir import DataDir
from gateway.settings import load_settings
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

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON answer. Raises ClientError."""
        return self._ask("GET", path, None, params)

    def post(self, path: str, body: dict[str, Any] | None = None, params: Mapping[str, str] | None = None) -> Any:
        """The JSON answer. Raises ClientError."""
        return self._ask("POST", path, body, params)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer. Raises ClientError."""
        return self._ask("PUT", path, body, None)

    def delete(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON answer. Raises ClientError."""
        return self._ask("DELETE", path, None, params)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, params: Mapping[str, str] | None) -> Any:
        with self._problems():
            response = self._http.request(method, path, json=body, params=params)
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


def client_for(data_dir: Path | None, url: str | None, token: str | None, *, silence_s: float | None) -> GatewayClient:
    """A client of the gateway that is named, or of the one that runs on the data folder.

    Raises:
        ClientError, SettingsError
    """
    return GatewayClient(*address_of(data_dir, url, token), read_timeout_s=silence_s)


def address_of(data_dir: Path | None, url: str | None, token: str | None) -> tuple[str, str]:
    """Address and access token of the gateway that is named, or of the one that runs on the data folder.

    Raises:
        ClientError, SettingsError
    """
    settings = load_settings(data_dir=data_dir)
    url = url or (str(settings.client.url) if settings.client.url else None)
    token = token or (settings.client.token.get_secret_value() if settings.client.token else None)
    if url is None:
        folder = DataDir(settings.data_dir)
        running = folder.running()
        if running is None:
            raise ClientError(
                f"No gateway runs on the data folder {folder.path}. Start one (omniops serve), or name one "
                "with --url and --token."
            )
        return running.url, token or running.token
    if token is None:
        raise ClientError("--url needs the gateway's access token: --token, or OMNIOPS_CLIENT__TOKEN.")
    return url, token
