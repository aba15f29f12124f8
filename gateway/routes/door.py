"""Who calls, found out before all else of a request is read: no stranger has a body parsed, or learns of a path."""

from __future__ import annotations

import re

from fastapi import FastAPI
from fastapi.requests import HTTPConnection
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.auth import Principal, token_of
from gateway.identity.audit import ORIGIN, Origin
from gateway.identity.identity import TooOften, WrongToken
from gateway.identity.jwts import KeysAway
from gateway.peers.passes import HEADER
from gateway.routes.guard import declared
from gateway.routes.problems import ProblemError, answer_to
from gateway.runtime import Gateway

#: Where the token of clients is that can say neither headers nor a query.
_PATH_TOKEN = re.compile(r"/token/([^/]+)/")


class Door:
    """ASGI middleware. Lets in whom the gateway knows, as `state.principal`, and anybody to the routes of act `public`.

    Every other request, also of paths that there are not, ends here: 401, 429, or 503 where nobody can tell.
    """

    def __init__(self, app: ASGIApp, routes: FastAPI, gateway: Gateway) -> None:
        self._app = app
        self._routes = routes
        self._gateway = gateway
        self._public: tuple[tuple[frozenset[str], re.Pattern[str]], ...] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._open(scope) and not _is_brought(scope):
            connection = HTTPConnection(scope)
            try:
                await self._let_in(connection)
            except Exception as error:  # noqa: BLE001 - the boundary to the client: every error is an answer
                await answer_to(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _let_in(self, connection: HTTPConnection) -> None:
        """Raises ProblemError; psycopg.Error."""
        source = "" if connection.client is None else connection.client.host
        caller = await self._principal(_token(connection), source)
        ORIGIN.set(Origin(caller.role, source))
        try:
            self._gateway.identity.admit(caller)
        except TooOften as error:
            raise _slower(error) from None
        connection.state.principal = caller

    async def _principal(self, token: str, source: str) -> Principal:
        what = "The request has no access token."
        if token:
            try:
                return await self._gateway.identity.principal(token, source)
            except WrongToken as error:
                what = str(error)
            except TooOften as error:
                raise _slower(error) from None
            except KeysAway as error:
                hint = "Try again later; the gateway's log has the reason."
                raise ProblemError(503, "no_keys", str(error), hint) from None
        hint = "Send the header `Authorization: Bearer TOKEN`; `omniops serve` prints the token at start."
        raise ProblemError(401, "unauthorized", what, hint)

    def _open(self, scope: Scope) -> bool:
        if self._public is None:
            routes = (route.partition(" ") for route, act in declared(self._routes) if act == "public")
            self._public = tuple((frozenset(methods.split("|")), compile_path(path)[0]) for methods, _, path in routes)
        method = scope.get("method", "WEBSOCKET")
        return any(method in methods and path.match(scope["path"]) for methods, path in self._public)


def _is_brought(scope: Scope) -> bool:
    """Another gateway says so, which `gateway.peers` looks into: who it does not believe goes no further."""
    return any(name == HEADER.encode() for name, _ in scope["headers"])


def _token(connection: HTTPConnection) -> str:
    by_path = _PATH_TOKEN.match(connection.scope["path"])
    asked = connection.query_params.get("token", "") or (by_path[1] if by_path else "")
    return token_of(connection.headers.get("authorization", ""), asked)


def _slower(error: TooOften) -> ProblemError:
    hint = f"Try again after {error.after_s} s."
    return ProblemError(429, "too_many_requests", str(error), hint, retry_after_s=error.after_s)
