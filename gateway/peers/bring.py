"""A request about a session that another gateway has is brought there: by the middleware, or by a route that asks."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.auth import Principal
from gateway.routes.problems import ProblemError, problem_of, respond

from .body import Body, ClientGone
from .forward import Unreachable
from .owners import Owner

if TYPE_CHECKING:
    from gateway.runtime import Gateway

log = structlog.get_logger(__name__)

#: Time between two looks whether a gateway that cannot be reached is gone, or back.
_AGAIN_S = 0.5

#: A gateway that is heard of and cannot be reached is waited for, leases.
_LEASES = 2


async def other_owner(gateway: Gateway, session: str) -> Owner | None:
    """The gateway that has the session, if it is another and lives."""
    owners = gateway.peers.owners
    if owners.holds(session):
        return None
    owner = await owners.owner(session)
    return owner if owner is not None and owner.left_s > 0 else None


async def bring(
    gateway: Gateway, session: str, caller: Principal, scope: Scope, body: Body, receive: Receive, send: Send
) -> bool:
    """Bring the request to the gateway that has its session; False where this one is to have it. `receive` has what
    comes after the body, of a websocket everything.
    """
    forwarder, loop = gateway.peers.forwarder, asyncio.get_running_loop()
    until = loop.time() + _LEASES * gateway.settings.peers.lease_s
    while (owner := await other_owner(gateway, session)) is not None:
        gone = partial(gateway.peers.owners.gone, owner.gateway)
        try:
            if not owner.url:
                raise Unreachable("it is not ready")
            if scope["type"] == "http":
                await forwarder.http(owner, caller, scope, body, receive, send, gone)
            else:
                await forwarder.websocket(owner, caller, scope, receive, send, gone)
            return True
        except ClientGone:
            return True
        except Unreachable as error:  # nothing of it was sent: again, until it is back, or its lease is over
            log.info("another gateway cannot be reached", session=session, url=owner.url, error=str(error))
            if body.begun:
                await respond(problem_of(_broken_off(session)))(scope, receive, send)
                return True
        if loop.time() > until:
            await respond(problem_of(_unreachable(session)))(scope, receive, send)
            return True
        await asyncio.sleep(min(_AGAIN_S, max(0.01, owner.left_s)))
    return False


class Brought(Response):
    """A route's answer where it finds that another gateway has the session: that gateway's answer."""

    def __init__(self, gateway: Gateway, session: str, caller: Principal, body: bytes) -> None:
        """`body`: the request's, which the route has read."""
        super().__init__()
        self._gateway = gateway
        self._session = session
        self._caller = caller
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await bring(self._gateway, self._session, self._caller, scope, Body(self._body), receive, send):
            await respond(problem_of(_moved(self._session)))(scope, receive, send)


def _unreachable(session: str) -> ProblemError:
    message = f"Session {session} is another gateway's, which lives and cannot be reached from here."
    return ProblemError(503, "gateway_unreachable", message, "See whether its peers.url is right, and try again.")


def _broken_off(session: str) -> ProblemError:
    message = f"The gateway that has session {session} went away in the middle of the request."
    return ProblemError(503, "gateway_gone", message, "Send it again.")


def _moved(session: str) -> ProblemError:
    return ProblemError(503, "gateway_gone", f"The gateway that had session {session} is gone.", "Send it again.")
