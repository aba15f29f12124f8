"""Which requests are another gateway's: those about a session that it has. They are brought there.

Answered here all the same is what the database knows: lists, and how sessions and cells are. Where the other gateway is
gone, and its lease over, the request goes on here, and the session is taken over.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import Principal
from gateway.routes.problems import ProblemError, problem_of, respond

from .forward import Forwarder, Unreachable, target_of
from .owners import Owner
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
#: Time between two looks whether a gateway that cannot be reached is gone, or back.
_AGAIN_S = 0.5


#: A gateway that is heard of and cannot be reached is waited for, leases.
_LEASES = 2


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
            body, whole = b"", receive
            session = await self._session(scope)
            caller = self._caller(scope)
            if session is not None and await self._owner(session) is None:  # a body that is answered here is not held
                session = None
            elif scope["type"] == "http" and (session is not None or _is_chat(scope)) and caller is not None:
                body, whole = await _read(receive)
                session = session or _asked(body)
        except Exception as error:  # noqa: BLE001 - the boundary to the client: every error is an answer
            await respond(problem_of(error))(scope, receive, send)
            return
        if session is None or caller is None:  # the routes say what is wrong
            await self._app(scope, whole, send)
            return
        if not await self._brought(session, caller, scope, body, receive, send):
            await self._app(scope, whole, send)

    async def _brought(
        self, session: str, caller: Principal, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> bool:
        """Bring the request to the gateway that has its session; False where this one is to have it."""
        forwarder: Forwarder = self._gateway.peers.forwarder
        loop = asyncio.get_running_loop()
        until = loop.time() + _LEASES * self._gateway.settings.peers.lease_s
        while (owner := await self._owner(session)) is not None:
            gone = partial(self._gateway.peers.owners.gone, owner.gateway)
            try:
                if not owner.url:
                    raise Unreachable("it is not ready")
                if scope["type"] == "http":
                    await forwarder.http(owner, caller, scope, body, receive, send, gone)
                else:
                    await forwarder.websocket(owner, caller, scope, receive, send, gone)
                return True
            except Unreachable as error:  # until it is back, or its lease is over
                log.info("another gateway cannot be reached", session=session, url=owner.url, error=str(error))
            if loop.time() > until:
                await respond(problem_of(_unreachable(session)))(scope, receive, send)
                return True
            await asyncio.sleep(min(_AGAIN_S, max(0.01, owner.left_s)))
        return False

    async def _owner(self, session: str) -> Owner | None:
        """The gateway that has the session, if it is another and lives."""
        owners = self._gateway.peers.owners
        if owners.holds(session):
            return None
        owner = await owners.owner(session)
        return owner if owner is not None and owner.left_s > 0 else None

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


def _unreachable(session: str) -> ProblemError:
    message = f"Session {session} is another gateway's, which lives and cannot be reached from here."
    return ProblemError(503, "gateway_unreachable", message, "See whether its peers.url is right, and try again.")


def _hex(id: str) -> str | None:
    try:
        return uuid.UUID(id).hex
    except ValueError:
        return None


def _is_chat(scope: Scope) -> bool:
    return bool(scope["path"] == _CHAT and scope["method"] == "POST")


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """A request's body, which `BodyLimit` bounds, and the request to be read again."""
    messages: list[Message] = []
    body = bytearray()
    while True:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
    left = iter(messages)

    async def again() -> Message:
        return next(left, None) or await receive()

    return bytes(body), again


def _asked(body: bytes) -> str | None:
    """The session that a chat's request goes on with."""
    try:
        session = msgspec.json.decode(body, type=_Session).session
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return session if session and re.fullmatch(r"[0-9a-f]{32}", session) else None
