"""The data folder: lock, token, transcripts, and where its gateway runs. And the runtime folder that belongs to it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
from pathlib import Path

import msgspec

from gateway.transcripts.store import write_atomically


class DataDirError(Exception):
    """The data or runtime folder cannot be used. The message says why and what to do."""


class Running(msgspec.Struct, frozen=True):
    """Where the gateway of a data folder runs; `gateway.json`, for its user alone."""

    url: str
    token: str
    pid: int


class DataDir:
    """One data folder. Methods block briefly."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.transcripts = self.path / "transcripts"
        self._running = self.path / "gateway.json"
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder and take its lock. Raises DataDirError when another gateway has it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(f"The data folder {self.path} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            running = self.running()
            where = f" at {running.url} (process {running.pid})" if running else ""
            raise DataDirError(
                f"A gateway runs on the data folder {self.path} already{where}. Stop it, or use another --data-dir."
            ) from None
        self._lock = lock

    def close(self) -> None:
        """Let go. Safe to call again."""
        if self._lock is not None:
            self._running.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def token(self) -> str:
        """The kept token; made at the first call. Raises DataDirError."""
        path = self.path / "token"
        try:
            kept = path.read_text().strip() if path.exists() else ""
            if not kept:
                kept = secrets.token_urlsafe(32)
                write_atomically(path, f"{kept}\n".encode())
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirError(f"The access token in {path} cannot be read: {error}. Remove the file.") from error
        return kept

    def id(self) -> str:
        """By which gateways on a database know each other; made at the first call. Raises DataDirError."""
        path = self.path / "gateway.id"
        try:
            kept = path.read_text().strip() if path.exists() else ""
            if not kept:
                kept = secrets.token_hex(8)
                write_atomically(path, f"{kept}\n".encode())
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirError(f"The gateway's id in {path} cannot be read: {error}. Remove the file.") from error
        return kept

    def announce(self, running: Running) -> None:
        """Tell this user's other programs where the gateway is."""
        write_atomically(self._running, msgspec.json.encode(running))

    def running(self) -> Running | None:
        """The gateway that runs on this folder, if one does."""
        try:
            found = msgspec.json.decode(self._running.read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if _alive(found.pid) else None


def runtime_dir(configured: Path | None, data_dir: Path) -> Path:
    """The folder for sockets, made for this user alone. Paths of unix sockets are short, hence its place.

    Raises:
        DataDirError: it is somebody else's.
    """
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:10]
    path = configured.absolute() if configured else Path(f"/tmp/omniops-{os.getuid()}-{digest}")  # noqa: S108 - checked
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise DataDirError(f"The runtime folder {path} cannot be used: {error.strerror}. Set runtime_dir.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise DataDirError(
            f"The runtime folder {path} must be a folder of user {os.getuid()} with mode 0700. "
            "Remove it, or set runtime_dir to another."
        )
    return path


def remove_runtime_dir(path: Path) -> None:
    """Remove it where it is empty."""
    for folder in (path / "postgres", path):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
