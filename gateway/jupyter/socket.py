"""The websocket of a kernel's channels: `/api/kernels/ID/channels?session_id=S`."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.acts import act
from gateway.auth import Principal
from gateway.jupyter.about import Overrun
from gateway.jupyter.hub import Hub
from gateway.jupyter.kernels import JupyterKernels
from gateway.jupyter.mailbox import BAD, TRY_LATER, Mailbox, Seat
from gateway.jupyter.wire import V1, BadMessage, asked
from gateway.routes.problems import ProblemError, problem_of, respond
from gateway.runtime import Gateway

router = APIRouter()
log = structlog.get_logger(__name__)

_MAX_SESSION_ID = 128
#: RFC 6455: a policy is violated.
_REFUSED = 1008
#: Time for a close frame to go out; a client that takes nothing gets none.
_CLOSE_S = 1.0
#: RFC 6455: a control frame's payload is at most 125 bytes, 2 of them the code.
_MAX_REASON = 120


@router.websocket("/api/kernels/{kernel}/channels")
@act("kernels")
async def channels(websocket: WebSocket, kernel: str, session_id: str = "") -> None:
    """Serve one connection to its end."""
    await _channels(websocket, kernel, session_id)


@router.websocket("/token/{token}/api/kernels/{kernel}/channels")
@act("kernels")
async def channels_by_path(websocket: WebSocket, token: str, kernel: str, session_id: str = "") -> None:
    """The same for clients that can say neither headers nor a query: jupyter_server's GatewayKernelClient."""
    await _channels(websocket, kernel, session_id)


async def _channels(websocket: WebSocket, kernel: str, session_id: str) -> None:
    kernels: JupyterKernels = websocket.app.state.jupyter
    try:
        caller: Principal = websocket.state.principal
        if len(session_id) > _MAX_SESSION_ID or not session_id.isprintable():
            raise ProblemError(400, "bad_request", f"session_id is printable, {_MAX_SESSION_ID} characters at most.")
        hub = await kernels.find(kernel[:64], caller.tenant)
        await kernels.wake(hub)
        mailbox, seat = hub.enter(f"{caller.name} {session_id}" if session_id else "")
    except BadMessage as error:
        await websocket.send_denial_response(respond(problem_of(ProblemError(429, "too_many", str(error)))))
        return
    except Exception as error:  # noqa: BLE001 - the boundary to the client: every error is an answer
        await websocket.send_denial_response(respond(problem_of(error)))
        return
    v1 = V1 in websocket.scope["subprotocols"]
    try:
        await websocket.accept(subprotocol=V1 if v1 else None)
        await _serve(websocket, hub, mailbox, seat, v1=v1)
    finally:
        hub.leave(mailbox, seat)


async def _serve(websocket: WebSocket, hub: Hub, mailbox: Mailbox, seat: Seat, *, v1: bool) -> None:
    reading = asyncio.create_task(_read(websocket, hub, mailbox, seat, v1=v1))
    writing = asyncio.create_task(_write(websocket, mailbox, seat, v1=v1))
    ended = asyncio.create_task(seat.ended.wait())
    watching = asyncio.create_task(_watch(websocket, seat))
    tasks = (reading, writing, ended, watching)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if seat.ended.is_set():
        log.info("a client's connection is ended", session=hub.about.session, code=seat.code, reason=seat.reason)
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect, OSError):
            async with asyncio.timeout(_CLOSE_S):
                reason = seat.reason.encode()[:_MAX_REASON].decode(errors="ignore")
                await websocket.close(seat.code, reason)


async def _watch(websocket: WebSocket, seat: Seat) -> None:
    """End the connection when its key is revoked, or its token is over."""
    running: Gateway = websocket.app.state.gateway
    await running.identity.gone(websocket.state.principal)
    seat.end(_REFUSED, "the access token does not count any more")


async def _read(websocket: WebSocket, hub: Hub, mailbox: Mailbox, seat: Seat, *, v1: bool) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] != "websocket.receive":
            return
        data = message.get("text")
        try:
            wanted = asked(message["bytes"] if data is None else data, v1=v1)
            if wanted.msg_type == "execute_request" and websocket.app.state.gateway.drain.begun:
                raise Overrun("the gateway is stopping: it runs no more cells")
            hub.take(mailbox, wanted)
        except BadMessage as error:
            seat.end(BAD, str(error))
            return
        except Overrun as error:
            seat.end(TRY_LATER, str(error))
            return


async def _write(websocket: WebSocket, mailbox: Mailbox, seat: Seat, *, v1: bool) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
        while (posted := await mailbox.next(seat)) is not None:
            frame = posted.v1 if v1 else posted.json
            if isinstance(frame, str):
                await websocket.send_text(frame)
            else:
                await websocket.send_bytes(frame)
