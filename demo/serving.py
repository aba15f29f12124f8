"""How the demo's own servers listen: on loopback, on a port that they print, until they are asked to stop."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

#: The first line of a server's standard output, followed by its address.
READY = "listening on "


def serve(app: ASGIApp, port: int) -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM. Port 0 takes a free one. Prints `READY` and the URL first.

    A proxy on this machine may say that its side is https (X-Forwarded-Proto), as in front of real stores.
    """
    # Named by its protocol, for asyncio switches Nagle's delay (40 ms an answer) off only where it sees TCP.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        print(f"{READY}http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=True, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])
