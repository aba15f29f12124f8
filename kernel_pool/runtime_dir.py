"""The folder of a running pool: control socket, one folder per kernel, the template's log.

    template.sock   control socket; only the gateway's user can reach it
    kernels/<id>/   a kernel's channel sockets and its broker socket, shown to this kernel as /ipc
    files/          what every kernel may read
    root/           empty; the sandbox's root is mounted on it where the host cannot see it
    template.log

One pool at a time has a folder (a lock on the folder itself). What a crashed one left is ended and removed first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import stat
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from kernel_pool.types import StartFailed

#: sockaddr_un holds 108 bytes with the closing zero; a kernel's longest name is "control", its broker's "broker.sock".
_MAX_PATH = 107
_LONGEST_NAME = "kernels/0123456789ab/broker.sock"
_PEER_CREDENTIALS = struct.Struct("3i")
_END_TIMEOUT_S = 10.0


class RuntimeDir:
    """An exclusively held runtime folder. All methods block briefly: files and, at `open`, an old template's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = path / "template.sock"
        self.log = path / "template.log"
        self.root = path / "root"
        self.files = path / "files"
        self.kernels = path / "kernels"
        self._lock: int | None = None

    def open(self, files: Mapping[str, bytes]) -> None:
        """Take the folder, clear it, lay out a new one. Raises StartFailed when it cannot be used."""
        longest = len(os.fsencode(self.path / _LONGEST_NAME))
        if longest > _MAX_PATH:
            raise StartFailed(
                f"runtime folder {self.path} is too long: its sockets' paths would have {longest} bytes, {_MAX_PATH} "
                f"are possible. Set runtime_dir to a shorter path."
            )
        self._lock = _take(self.path)
        try:
            end_template(self.control)
            self._clear()
            for folder in (self.root, self.files, self.kernels):
                folder.mkdir(mode=0o755)
            for name, content in files.items():
                if name in {"", ".", ".."} or "/" in name:
                    raise StartFailed(f"file name {name!r} for the sandbox is not a plain name")
                (self.files / name).write_bytes(content)
                (self.files / name).chmod(0o444)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove everything and let go. Safe to call again."""
        if self._lock is None:
            return
        self._clear()
        with contextlib.suppress(OSError):
            self.path.rmdir()
        os.close(self._lock)
        self._lock = None

    def _clear(self) -> None:
        for folder in (self.root, self.files, self.kernels):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.control, self.log):
            file.unlink(missing_ok=True)

    def add_kernel(self, kernel: str, uid: int | None) -> Path:
        """Make a kernel's folder; only root and the kernel's user can enter it."""
        path = self.kernels / kernel
        path.mkdir(mode=0o700)
        if uid is not None:
            os.chown(path, uid, uid)
        return path

    def remove_kernel(self, kernel: str) -> None:
        shutil.rmtree(self.kernels / kernel, ignore_errors=True)

    def log_tail(self, size: int = 2000) -> str:
        """The end of what the template wrote."""
        try:
            return self.log.read_text(errors="replace")[-size:].strip()
        except OSError:
            return ""


def _take(path: Path) -> int:
    """Create or check the folder and lock it. Raises StartFailed."""
    while True:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StartFailed(
                f"runtime folder {path} cannot be used: {error.strerror}. Set runtime_dir to another."
            ) from error
        found = os.fstat(fd)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            os.close(fd)
            raise StartFailed(
                f"runtime folder {path} must belong to user {os.getuid()} with mode 0700 (it belongs to "
                f"{found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}). Remove it or set runtime_dir to another."
            )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StartFailed(
                f"runtime folder {path} is in use by another gateway. Stop it, or set runtime_dir to another."
            ) from None
        # the one that held it before may have removed it between the two calls above
        with contextlib.suppress(FileNotFoundError):
            now = os.stat(path)
            if (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino):
                return fd
        os.close(fd)


def end_template(control: Path) -> None:
    """End the template that listens at `control`, if one does, with all its kernels.

    The socket tells its owner's process (unix(7), SO_PEERCRED): the launcher, with which everything below it ends.
    Raises StartFailed when it does not end.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(control))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        except OSError:
            return
        pid, uid, _ = _PEER_CREDENTIALS.unpack(credentials)
        if uid != os.getuid() or pid == os.getpid():
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], _END_TIMEOUT_S)[0]:
            raise StartFailed(f"process {pid}, a template that a crashed gateway left, does not end. End it by hand.")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    _wait_for_end(control)


def _wait_for_end(control: Path) -> None:
    """Wait until nobody listens any more: the template ends after its launcher, and its kernels with it."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.settimeout(1)
                probe.connect(os.fspath(control))
            except OSError:
                return
        time.sleep(0.02)
    raise StartFailed(f"a template that a crashed gateway left still listens at {control}. End it by hand.")
