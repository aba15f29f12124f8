"""The folder of a running pool: control socket, one folder per kernel, the template's log.

    template.sock   control socket; only the gateway's user can reach it
    kernels/<id>/   a kernel's channel sockets and its broker socket, shown to this kernel as /ipc
    leases/         what is written down of each kernel, see `leases.py`
    generation      what the kernels are made from
    baseline        of containers: bytes of memory that one has whose kernel is ready
    files/          what every kernel may read
    root/           empty; the sandbox's root is mounted on it where the host cannot see it
    template.log

One place at a time has a folder (a lock on the folder itself).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from kernel_pool.folders import take
from kernel_pool.leases import Leases
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
        self.leases = Leases(path / "leases")
        self._generation = path / "generation"
        self._baseline = path / "baseline"
        self._lock: int | None = None

    def open(self) -> None:
        """Take the folder; what is in it stays. Raises StartFailed when it cannot be used."""
        longest = len(os.fsencode(self.path / _LONGEST_NAME))
        if longest > _MAX_PATH:
            raise StartFailed(
                f"runtime folder {self.path} is too long: its sockets' paths would have {longest} bytes, {_MAX_PATH} "
                f"are possible. Set runtime_dir to a shorter path."
            )
        self._lock = take(self.path)
        try:
            self.leases.open()
        except BaseException:
            self.leave()
            raise

    @property
    def held(self) -> bool:
        """Whether the folder is ours: between `open` and `close` or `leave`."""
        return self._lock is not None

    def is_of(self, generation: str) -> bool:
        """Whether what is in the folder was made from the same."""
        try:
            return self._generation.read_text() == generation
        except OSError:
            return False

    @property
    def baseline(self) -> int | None:
        """Bytes of memory that a container has whose kernel is ready; None: not measured yet."""
        try:
            return int(self._baseline.read_text())
        except (OSError, ValueError):
            return None

    def set_baseline(self, size: int) -> None:
        self._baseline.write_text(str(size))

    def lay_out(self, files: Mapping[str, bytes], generation: str) -> None:
        """Clear the folder but for what is written down of kernels, and make a new one for `generation`.

        Raises StartFailed.
        """
        self._clear()
        for folder in (self.root, self.files, self.kernels):
            folder.mkdir(mode=0o755)
        for name, content in files.items():
            if name in {"", ".", ".."} or "/" in name:
                raise StartFailed(f"file name {name!r} for the sandbox is not a plain name")
            (self.files / name).write_bytes(content)
            (self.files / name).chmod(0o444)
        self._generation.write_text(generation)

    def leave(self) -> None:
        """Let go of the folder and leave everything in it. Safe to call again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        """Remove everything and let go. Safe to call again."""
        if self._lock is None:
            return
        self._clear()
        shutil.rmtree(self.path / "leases", ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()
        self.leave()

    def _clear(self) -> None:
        for folder in (self.root, self.files, self.kernels):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.control, self.log, self._generation, self._baseline):
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
        self.leases.remove(kernel)

    def log_tail(self, size: int = 2000) -> str:
        """The end of what the template wrote."""
        try:
            return self.log.read_text(errors="replace")[-size:].strip()
        except OSError:
            return ""


def template_owner(control: Path) -> int | None:
    """A pidfd of the process with which everything behind the template at `control` ends; None when none listens.

    The socket tells its owner's process (unix(7), SO_PEERCRED): the launcher.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(control))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
            pid, uid, _ = _PEER_CREDENTIALS.unpack(credentials)
            return None if uid != os.getuid() or pid == os.getpid() else os.pidfd_open(pid)
        except OSError:
            return None


def end_template(control: Path) -> None:
    """End the template that listens at `control`, if one does, with all its kernels.

    Raises StartFailed when it does not end.
    """
    pidfd = template_owner(control)
    if pidfd is None:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], _END_TIMEOUT_S)[0]:
            raise StartFailed(f"the template at {control}, which a crashed gateway left, does not end. End it by hand.")
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
