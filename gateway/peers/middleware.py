"""Which requests are another gateway's: those about a session that it has. They are brought there.

Answered here all the same is what the database knows: lists, and how sessions and cells are. Where the other gateway is
gone, and its lease over, the request goes on here, and the session is taken over.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import msgspec
import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.auth import Principal
from gateway.routes.problems import ProblemError, problem_of, respond

from .body import Body, read
from .bring import bring, other_owner
from .forward import target_of
from .passes import CALLER, HEADER

if TYPE_CHECKING:
    from gateway.runtime import Gateway

log = structlog.get_logger(__name__)

_SESSION = re.compile(r"/v1/(?:sessions|transcripts)/([0-9a-f]{32})(?:\.ipynb)?(/.*)?\Z")
_KERNEL = re.compile(r"(?:/token/[^/]+)?/api/kernels/([0-9a-fA-F-]{32,36})(?:/.*)?\Z")
_DOCUMENT = re.compile(r"/api/sessions/([0-9a-fA-F-]{36})\Z")
#: What the database answers: how a session and its cells are.
_KNOWN = re.compile(r"/v1/sessions/[0-9a-f]{32}(/cells(/[^/]+)?)?\Z")
_CHAT = "/v1/chat"

#: Bytes of a body that are kept, so that the request can be made again where its gateway dies; larger ones are files.
_KEPT = 2**20


class _Session(msgspec.Struct):
    session: str | None = None


class Elsewhere:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            if self._is_brought(scope):
                await self._app(scope, receive, send)
                return
            body, whole = Body(b""), receive
            session = await self._session(scope)
            caller = self._caller(scope)
            if session is not None and await other_owner(self._gateway, session) is None:
                session = None  # it is answered here: its body is the route's to read
            elif scope["type"] == "http" and (session is not None or _is_chat(scope)) and caller is not None:
                most = self._gateway.settings.server.max_request_mb * 2**20
                body, whole = await read(receive, _KEPT if session is not None else most)
                session = session or _asked(body.first)
        except Exception as error:  # noqa: BLE001 - the boundary to the client: every error is an answer
            await respond(problem_of(error))(scope, receive, send)
            return
        if session is None or caller is None:  # the routes say what is wrong
            await self._app(scope, whole, send)
            return
        if not await bring(self._gateway, session, caller, scope, body, receive, send):
            await self._app(scope, whole, send)

    async def _session(self, scope: Scope) -> str | None:
        """The session that the request is about, where it takes its gateway to answer."""
        path = scope["path"]
        if found := _SESSION.match(path):
            get = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
            return None if get and _KNOWN.match(path) else found[1]
        if found := _KERNEL.match(path):
            return _hex(found[1])
        if found := _DOCUMENT.match(path):
            row = await self._gateway.jupyter.rows.notebook(None, id=found[1])
            return None if row is None else row.kernel
        return None

    def _is_brought(self, scope: Scope) -> bool:
        """Whether another gateway brings it; who asks is in the scope then. Raises ProblemError (401)."""
        value = HTTPConnection(scope).headers.get(HEADER)
        if value is None:
            return False
        method = scope.get("method", "GET")
        caller = self._gateway.peers.passes.caller(value, method, target_of(scope))
        if caller is None:
            log.warning("a request said that another gateway brings it, and none did", path=scope["path"])
            raise ProblemError(401, "unauthorized", f"The header {HEADER} is for the gateways alone.")
        scope[CALLER] = caller
        return True

    def _caller(self, scope: Scope) -> Principal | None:
        """Whom the door has let in; None for what needs nobody."""
        found: Principal | None = scope.get("state", {}).get("principal")
        return found


def _hex(id: str) -> str | None:
    try:
        return uuid.UUID(id).hex
    except ValueError:
        return None


def _is_chat(scope: Scope) -> bool:
    return bool(scope["path"] == _CHAT and scope["method"] == "POST")


def _asked(body: bytes) -> str | None:
    """The session that a chat's request goes on with."""
    try:
        session = msgspec.json.decode(body, type=_Session).session
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return session if session and re.fullmatch(r"[0-9a-f]{32}", session) else None
