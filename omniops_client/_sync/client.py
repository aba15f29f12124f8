# Made of omniops_client/_async by `make client`. Do not change it here.
"""The client of a gateway, and what is had from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal

import httpx

from omniops_client import core, requests
from omniops_client._sync.http import Http
from omniops_client._sync.session import Session
from omniops_client.core import Options
from omniops_client.types import (
    Answer,
    Approval,
    ApprovalState,
    ChatEvent,
    Role,
    SessionInfo,
    Status,
    Tool,
    ToolRecord,
    Transcript,
    TranscriptForm,
    Verification,
    Write,
)


class Client:
    """A gateway. Close it, or use it as a context manager; it keeps connections open in between."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        connect_s: float = 5.0,
        silence_s: float | None = 60.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`url`, `token`: None for OMNIOPS_CLIENT__URL (else http://127.0.0.1:8765) and OMNIOPS_CLIENT__TOKEN.

        `connect_s`: time to connect. `silence_s`: longest silence of the gateway in an answer; None waits for ever.
        `retries`: attempts after the first, of what may be sent again.

        Raises:
            Unauthorized: there is no token.
            BadAnswer: the address cannot be.
        """
        self._http = Http(Options.of(url, token, connect_s, silence_s, retries), transport)
        self.sessions = Sessions(self._http)
        self.chat = Chat(self._http)
        self.approvals = Approvals(self._http)
        self.transcripts = Transcripts(self._http)
        self.tools = Tools(self._http)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def status(self) -> Status:
        """How the gateway is."""
        return self._http.call(requests.status())

    # -- any route by its path, for what this client has no name for: the JSON answers --

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Raises OmniopsError."""
        return self._http.call(requests.plain("GET", path, None, params))

    def post(self, path: str, body: object = None, params: Mapping[str, str] | None = None) -> Any:
        """Raises OmniopsError."""
        return self._http.call(requests.plain("POST", path, body, params))

    def put(self, path: str, body: object = None, params: Mapping[str, str] | None = None) -> Any:
        """Raises OmniopsError."""
        return self._http.call(requests.plain("PUT", path, body, params))

    def delete(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Raises OmniopsError."""
        return self._http.call(requests.plain("DELETE", path, None, params))


class Sessions:
    def __init__(self, http: Http) -> None:
        self._http = http

    def create(
        self,
        tenant: str,
        *,
        role: Role = "agent",
        title: str = "",
        customer: int | None = None,
        profile: str | None = None,
        key: str | None = None,
    ) -> Session:
        """Start a session: a kernel of its own. It lives until `end`; the session is a context manager that ends it.

        `customer`: the store's id of a customer who is verified already. `profile`: the kind of kernel; None for the
        role's. `key`: the same one gives the same session again, whoever calls and from wherever; None for a new one.

        Raises:
            Forbidden, NotFound (no such tenant), BadRequest, QuotaExceeded, ServerError (no kernel), ...
        """
        asked = requests.create_session(tenant, role=role, title=title, customer=customer, profile=profile, key=key)
        return Session(self._http, self._http.call(asked))

    def open(self, session: str) -> Session:
        """One that is there, by its id. Raises NotFound."""
        return Session(self._http, self._http.call(requests.get_session(session)))

    def list(self, tenant: str | None = None, *, page: int = 100) -> Iterator[SessionInfo]:
        """All of them, the newest first, asked for by pages."""
        after: str | None = None
        while True:
            found = self._http.call(requests.list_sessions(tenant, after, page))
            for info in found:
                yield info
            if len(found) < page:
                return
            after = found[-1].id


class Chat:
    """The agent."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def send(
        self,
        tenant: str,
        message: str,
        *,
        session: str | None = None,
        mode: Literal["cells", "direct"] | None = None,
        customer: int | None = None,
    ) -> Answer:
        """Put a customer's message to the agent and wait for its answer. `session` continues a conversation."""
        asked = requests.chat(tenant, message, session=session, mode=mode, customer=customer)
        return self._http.call(asked)

    def stream(
        self,
        tenant: str,
        message: str,
        *,
        session: str | None = None,
        mode: Literal["cells", "direct"] | None = None,
        customer: int | None = None,
    ) -> Iterator[ChatEvent]:
        """The same, with what the agent does as it does it; the last event is `end`. Who stops listening ends the turn.

        Raises:
            OmniopsError; what goes wrong within a turn is an event.
        """
        asked = requests.chat(tenant, message, session=session, mode=mode, customer=customer)
        with self._http.events(asked) as events:
            for event in events:
                yield ChatEvent(event.event, core.event_of(event, dict[str, Any], self._http.options.url))


class Approvals:
    """Calls that wait for a person, and taking back what was done."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def list(
        self,
        state: ApprovalState | None = "pending",
        *,
        tenant: str | None = None,
        session: str | None = None,
        limit: int = 100,
    ) -> tuple[Approval, ...]:
        """Requests, the newest first; those that wait, unless asked for others."""
        return self._http.call(requests.list_approvals(state, tenant, session, limit))

    def get(self, approval: str) -> Approval:
        return self._http.call(requests.get_approval(approval))

    def approve(self, approval: str, *, calls: Sequence[int] | None = None, note: str = "") -> Approval:
        """Let its calls go out: all, or those at these positions; the others are refused.

        Raises:
            Conflict: it was decided before, or has expired.
            Forbidden: it is the caller's own.
        """
        return self._http.call(requests.approve(approval, calls, note))

    def deny(self, approval: str, *, note: str = "") -> Approval:
        """Refuse all its calls; the note is told to whoever made them. Raises Conflict, Forbidden."""
        return self._http.call(requests.deny(approval, note))

    def watch(self) -> Iterator[Approval]:
        """Requests as they come and as they are decided; first those that wait. For ever. Raises OmniopsError."""
        with self._http.events(requests.watch_approvals()) as events:
            for event in events:
                yield core.event_of(event, Approval, self._http.options.url)

    def writes(self, *, tenant: str | None = None, session: str | None = None, limit: int = 100) -> tuple[Write, ...]:
        """Writes that sessions made, the newest first."""
        return self._http.call(requests.list_writes(tenant, session, limit))

    def revert(self, call: int) -> Write:
        """Take back what a call did. Raises Conflict, Forbidden, NotFound."""
        return self._http.call(requests.revert(call))


class Transcripts:
    """What happened."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def search(
        self,
        *,
        tenant: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        tool: str | None = None,
        error: str | None = None,
        cost_min: float | None = None,
        cost_max: float | None = None,
        page: int = 100,
    ) -> Iterator[Transcript]:
        """All that fit, the newest first, asked for by pages."""
        offset = 0
        while True:
            asked = requests.list_transcripts(tenant, since, until, tool, error, cost_min, cost_max, page, offset)
            found = self._http.call(asked)
            for each in found:
                yield each
            if len(found) < page:
                return
            offset += len(found)

    def notebook(self, session: str) -> dict[str, Any]:
        """A session's notebook, nbformat 4.5."""
        return self._http.call(requests.get_notebook(session))

    def export(self, session: str, form: TranscriptForm = "html") -> bytes:
        """A session as a file to give away, personal data masked."""
        return self._http.call(requests.export_transcript(session, form))

    def verify(self, session: str) -> Verification:
        """Whether it is, byte by byte, what was written."""
        return self._http.call(requests.verify_transcript(session))


class Tools:
    """What cells can call."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def search(
        self,
        query: str,
        *,
        server: str | None = None,
        tenant: str | None = None,
        role: Role | None = None,
        limit: int = 20,
    ) -> tuple[Tool, ...]:
        """Tools by what they do, best first."""
        page = self._http.call(requests.find_tools(query, server, tenant, role, limit, ""))
        return page.tools

    def list(
        self, *, server: str | None = None, tenant: str | None = None, role: Role | None = None, page: int = 200
    ) -> Iterator[Tool]:
        """All of them by name, asked for by pages."""
        after: str | None = ""
        while after is not None:
            found = self._http.call(requests.find_tools("", server, tenant, role, page, after))
            for tool in found.tools:
                yield tool
            after = found.next

    def get(self, name: str, *, tenant: str | None = None, role: Role | None = None) -> ToolRecord:
        """All about one, `server.tool`. Raises NotFound."""
        return self._http.call(requests.get_tool(name, tenant, role))
