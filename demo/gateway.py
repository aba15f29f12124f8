"""The gateway as the demo sees it: an HTTP service with a token. Nothing of the product is imported here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import orjson

Mode = Literal["cells", "direct"]

#: Silence of the event stream after which a turn is given up, seconds: more than the agent's own limits.
_SILENCE_S = 240.0
_POLL_S = 0.05


class GatewayFailed(RuntimeError):
    """The gateway refused or broke off."""


@dataclass(frozen=True)
class Event:
    """One server-sent event of a turn; kinds are those of the gateway's API ("step", "cell", "answer", "end" ...)."""

    kind: str
    data: dict[str, Any]


@dataclass
class Turn:
    """What one message came to, collected from its events."""

    mode: Mode
    session: str = ""
    steps: int = 0
    calls: list[dict[str, Any]] = field(default_factory=list)
    answer: str = ""
    reason: str = ""
    problem: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    #: What the gateway reckons that the same calls would have used as direct tool calls.
    direct_usage: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    #: Of the turn's time what was not the model's, as the gateway says it.
    own_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """What the model read and wrote, all requests together."""
        return int(self.usage.get("input", 0)) + int(self.usage.get("output", 0))

    def take(self, event: Event) -> None:
        data = event.data
        self.session = data.get("session", self.session)
        match event.kind:
            case "step":
                self.steps += 1
            case "cell":
                self.calls += data.get("calls", ())
            case "call":
                self.calls.append(data)
            case "answer":
                self.answer = data["text"]
            case "error":
                self.problem = data.get("message", "")
            case "end":
                self.reason, self.usage = data["reason"], data.get("usage") or {}
                self.direct_usage = data.get("direct_usage") or {}
                self.own_seconds = data.get("seconds", 0.0) - data.get("model_seconds", 0.0)
                self.problem = data.get("message") or self.problem


class Gateway:
    """One gateway. Close it at the end."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_SILENCE_S, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def wait(self, timeout_s: float, alive: Callable[[], None]) -> None:
        """Until it is healthy; `alive` raises when it cannot become so any more. Raises GatewayFailed."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            alive()
            try:
                if self._http.get("/healthz", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
        raise GatewayFailed(f"The gateway at {self.url} was not ready within {timeout_s:g} s.")

    def load_catalogue(self, tenant: str) -> dict[str, Any]:
        """Fill the tenant's catalogue from its shop; the report. Raises GatewayFailed."""
        answer = self._http.post(f"/v1/tenants/{tenant}/catalog")
        if answer.status_code != 200:
            raise GatewayFailed(f"The catalogue could not be loaded: {answer.status_code} {answer.text[:500]}")
        report: dict[str, Any] = answer.json()
        return report

    def isolation(self) -> str:
        """What the sandboxes are made of here, in the gateway's words. Raises GatewayFailed."""
        answer = self._http.get("/v1/status")
        if answer.status_code != 200:
            raise GatewayFailed(f"GET /v1/status: {answer.status_code} {answer.text[:500]}")
        return str(answer.json().get("isolation", ""))

    def chat(self, tenant: str, message: str, mode: Mode) -> Iterator[Event]:
        """The events of one turn in a new session, as they happen. Raises GatewayFailed."""
        body = {"tenant": tenant, "message": message, "mode": mode}
        try:
            with self._http.stream("POST", "/v1/chat", json=body, headers={"accept": "text/event-stream"}) as answer:
                if answer.status_code != 200:
                    raise GatewayFailed(f"POST /v1/chat: {answer.status_code} {answer.read().decode()[:500]}")
                yield from _events(answer.iter_lines())
        except httpx.TransportError as error:
            raise GatewayFailed(f"POST /v1/chat broke off: {error!r}") from error

    def end_session(self, session: str) -> None:
        """Give the session's kernel back; its transcript stays. Raises GatewayFailed."""
        answer = self._http.delete(f"/v1/sessions/{session}")
        if answer.status_code not in (200, 202, 204):
            raise GatewayFailed(f"DELETE /v1/sessions/{session}: {answer.status_code} {answer.text[:500]}")


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) whose data is JSON."""
    kind, data = "message", ""
    for line in lines:
        if not line:
            if data:
                yield Event(kind, orjson.loads(data))
            kind, data = "message", ""
        elif line.startswith("event:"):
            kind = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data += line.removeprefix("data:").strip()
