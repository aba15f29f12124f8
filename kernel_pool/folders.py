"""Folders of sockets: who may have one, and the pool's own, which holds those of its places.

    <profile>.<generation>/   the folder of one place (`runtime_dir.RuntimeDir`)

One pool at a time has its folder, one place at a time has its own: a lock on the folder itself, which ends with the
process that holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from kernel_pool.types import PROFILE_NAME, StartFailed

#: Characters of a generation's digest in a folder's name: sockets' paths are short.
_GENERATION_CHARS = 8


class PoolFolder:
    """The runtime folder of a pool, exclusively held between `open` and `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Take the folder; what is in it stays. Raises StartFailed when it cannot be used."""
        self._lock = take(self.path)

    def found(self) -> dict[str, list[str]]:
        """Names of the places' folders that an earlier gateway left, by profile."""
        names: dict[str, list[str]] = {}
        for entry in sorted(os.scandir(self.path), key=lambda entry: entry.name):
            profile = entry.name.partition(".")[0]
            if entry.is_dir(follow_symlinks=False) and PROFILE_NAME.match(profile):
                names.setdefault(profile, []).append(entry.name)
        return names

    def close(self) -> None:
        """Remove the folder if it is empty, and let go. Safe to call again."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            self.path.rmdir()
        os.close(self._lock)
        self._lock = None


def place_folder(profile: str, generation: str) -> str:
    """The name of a place's folder."""
    return f"{profile}.{generation[:_GENERATION_CHARS]}" if generation else profile


def take(path: Path) -> int:
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
