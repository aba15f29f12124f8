"""How the demo's own servers listen: on loopback, until they are asked to stop."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

#: The first line of a server's standard output, followed by its address.
READY = "listening on "


def listen(port: int = 0) -> socket.socket:
    """A listening socket on 127.0.0.1; port 0 takes a free one. Raises OSError."""
    # Named by its protocol, for asyncio switches Nagle's delay (40 ms an answer) off only where it sees TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def address(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def serve(app: ASGIApp, *, port: int = 0, fd: int | None = None) -> None:
    """Serve until SIGINT or SIGTERM, on a port or on an inherited listening socket. Prints `READY` and the URL first.

    A proxy on this machine may say that its side is https (X-Forwarded-Proto), as in front of real stores.
    """
    inherited = None if fd is None else socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fd)
    with inherited or listen(port) as listener:
        print(f"{READY}{address(listener)}", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=True, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])
