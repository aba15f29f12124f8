"""The gateway as a process: socket, HTTP server, signals, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import structlog
import uvicorn

from gateway.app import create_app
from gateway.data_dir import Running
from gateway.operations.connections import protocols
from gateway.runtime import Gateway, open_gateway
from gateway.settings import ServerSettings, Settings
from gateway.start_error import StartError

log = structlog.get_logger(__name__)

_BACKLOG = 512
#: Time between two looks whether cells have ended, at a stop.
_LOOK_S = 0.05
#: Time for event streams without an end, after that of cells.
_STREAMS_S = 1
#: A client that takes nothing for this long is cut off, milliseconds.
_STALL_MS = 60_000


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would end the process by the signal before we have cleaned up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, ready: Callable[[Gateway, Running], None]) -> None:
    """Run a gateway until SIGTERM or SIGINT; a second signal cuts what still runs short. `ready` is called once.

    Raises:
        StartError
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    server: _Server | None = None

    def on_signal() -> None:
        if stop.is_set():
            hurry.set()
            if server is not None:
                server.force_exit = server.should_exit = True
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # before anything is started: a port that is taken should be said at once
    listener = _listen(settings.server)
    with listener:
        async with open_gateway(settings) as gateway:
            if stop.is_set():
                return
            http, websocket = protocols(settings.server)
            config = uvicorn.Config(
                create_app(gateway),
                http=http,
                ws=websocket,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=bool(settings.server.proxies),
                forwarded_allow_ips=list(settings.server.proxies),
                server_header=False,
                # it would write the tokens of websockets' addresses into the log
                log_level="warning",
                ws_max_size=settings.jupyter.message_mb * 2**20,
                ws_ping_interval=settings.server.heartbeat_s,
                ws_ping_timeout=None,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=_STREAMS_S,
            )
            server = _Server(config)
            running = Running(url=url_of(listener), token=gateway.token, pid=os.getpid())
            gateway.data_dir.announce(running)
            await gateway.peers.owners.announce(str(settings.peers.url or _peers_url(listener)))
            ready(gateway, running)
            gc.freeze()  # what is loaded stays: looking through it costs all sessions a third of a second each time
            stopping = asyncio.create_task(_stop(gateway, server, stop, hurry))
            try:
                await server.serve(sockets=[listener])
            finally:
                stopping.cancel()


async def _stop(gateway: Gateway, server: uvicorn.Server, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """Once `stop` is set: no new work, and while cells end the port says so; then the server stops. `hurry`: now."""
    await stop.wait()
    drain, kept = gateway.drain, gateway.settings.pool.on_stop == "keep"
    drain.begin()
    log.info("stopping", cells=gateway.sessions.counts().cells)
    opened_until = time.monotonic() + gateway.settings.server.drain_s
    while not hurry.is_set():
        busy = any(gateway.sessions.counts().cells.values()) and drain.left_s > 0
        gateway.jupyter.send_away(kept=kept, busy=not busy)
        if not busy and time.monotonic() >= opened_until:
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), _LOOK_S)
    await asyncio.sleep(_LOOK_S)  # the websockets' ends are on their way
    server.should_exit = True


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _peers_url(listener: socket.socket) -> str:
    """Where other machines reach it, where it listens on all addresses."""
    host, port = listener.getsockname()[:2]
    return f"http://{socket.getfqdn()}:{port}" if host in ("0.0.0.0", "::") else url_of(listener)  # noqa: S104


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"server.host {settings.host!r} cannot be listened on: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALL_MS)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(
            f"Port {settings.port} of {settings.host} cannot be listened on: {error.strerror}. "
            "Use another --port; 0 takes a free one."
        ) from error
    listener.setblocking(False)
    return listener
