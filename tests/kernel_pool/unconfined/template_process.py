"""A template process without a sandbox, to test the kernel itself: a line `folder key` in, a line `pid` out."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


def listen(folder: str) -> dict[str, int]:
    listeners = {}
    for channel in CHANNELS:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(f"{folder}/{channel}")
        server.listen(16)
        listeners[channel] = server.detach()
    return listeners


def main() -> None:
    from kernel_pool.sandbox.kernel import WarmKernel

    preload = tuple(sys.argv[1].split(",")) if sys.argv[1:] and sys.argv[1] else ()
    warm = WarmKernel.build(preload)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    answers = os.dup(1)
    os.write(answers, b"up\n")
    for line in iter(sys.stdin.readline, ""):
        folder, key = line.split()
        Path(folder, "home").mkdir()
        if os.fork() == 0:
            os.chdir(f"{folder}/home")
            warm.run_child(
                listen(folder), folder, bytes.fromhex(key), lambda: os.write(answers, f"{os.getpid()}\n".encode())
            )


if __name__ == "__main__":
    main()
