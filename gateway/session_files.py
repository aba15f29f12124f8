"""The work folder of a session: its kernel's own files, asked of the kernel, which is a stranger.

Nothing of it is kept here, and no path of it means anything on this machine. Files are the kernel's: they go with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.live_session import LiveSession, SessionKernels
from gateway.session_book import SessionBook
from gateway.session_errors import SessionEnded, SessionError, SessionLost
from gateway.settings import FileSettings
from kernel_pool.files import About, Entry, FileTrouble, WorkFolder
from kernel_pool.kernel import Kernel

_PATH_BYTES = 1000
_MB = 1024 * 1024


class FileError(SessionError):
    """What was asked of a work folder cannot be done."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


_LIST = "GET /v1/sessions/{session}/files tells what is there, and of which kind."
#: By what a kernel says: what is told.
_TOLD = {
    "not_found": ("file_not_found", "There is no {path!r} in the work folder.", f"{_LIST} Links are not followed."),
    "not_a_file": ("not_a_file", "{path!r} is no regular file.", _LIST),
    "not_a_folder": ("not_a_folder", "A part of {path!r} is no folder.", _LIST),
    "not_empty": ("not_empty", "The folder {path!r} is not empty.", _LIST),
    "refused": ("file_refused", "The kernel may not, or will not, do this to {path!r}.", _LIST),
    "full": (
        "work_folder_full",
        "The work folder has no room for {path!r}.",
        "Delete what is not needed, or raise pool.disk_mb (the files of a kernel).",
    ),
    "bad_path": (
        "bad_path",
        "{path!r} cannot be a path in the work folder.",
        "Paths are relative to it, as `data/orders.csv`: no `..`, no `/` first or last.",
    ),
    "too_large": (
        "file_too_large",
        "{path!r} is larger than {largest} MiB (files.largest_mb).",
        "Have a cell split it, or raise files.largest_mb.",
    ),
}


@dataclass(frozen=True)
class SessionFiles:
    """All methods raise SessionError, FileError among them, and KernelPoolError."""

    book: SessionBook
    kernels: SessionKernels
    settings: FileSettings

    async def list(self, session: str, path: str, after: str, limit: int) -> tuple[tuple[Entry, ...], bool]:
        """Entries of a folder ("": the work folder) by name, those after `after`; and whether there are more."""
        with self._told():
            return await (await self._folder(session, path, root=True)).list(path, after, limit)

    async def look(self, session: str, path: str) -> About:
        """How a file is that may be read."""
        with self._told():
            about = await (await self._folder(session, path)).look(path)
        if about.size > self.settings.largest_mb * _MB:
            raise self._error("too_large", path)
        return about

    async def read(self, session: str, path: str, about: About, offset: int, size: int) -> AsyncIterator[bytes]:
        """So many bytes of a file that was looked at, from `offset` on, by pieces."""
        with self._told():
            async for piece in (await self._folder(session, path)).read(path, about, offset, size):
                yield piece

    async def write(self, session: str, path: str, pieces: AsyncIterator[bytes]) -> About:
        """Put a file there, in place of one that is there; folders on its way are made."""
        with self._told():
            return await (await self._folder(session, path)).write(path, self._bounded(path, pieces))

    async def delete(self, session: str, path: str) -> None:
        """Remove a file, a link, or an empty folder."""
        with self._told():
            await (await self._folder(session, path)).delete(path)

    async def _folder(self, session: str, path: str, *, root: bool = False) -> WorkFolder:
        parts = path.split("/")
        wrong = any(part in ("", ".", "..") or "\0" in part for part in parts)
        if (wrong and not (root and path == "")) or len(path.encode(errors="replace")) > _PATH_BYTES:
            raise self._error("bad_path", path)
        live = await self.book.find(session)
        # beside a cell that runs: only a kernel that has to come into being is waited for
        if live.kernel is None or live.kernel.exited.done():
            async with live.lock:
                await self.kernels.ready(live)
        return WorkFolder(_kernel_of(live), self.settings.patience_s)

    async def _bounded(self, path: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        got = 0
        async for piece in pieces:
            got += len(piece)
            if got > self.settings.largest_mb * _MB:
                raise self._error("too_large", path)
            yield piece

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileTrouble as error:
            raise self._error(error.trouble, error.path) from None

    def _error(self, what: str, path: str) -> FileError:
        code, message, hint = _TOLD[what]
        return FileError(code, message.format(path=path[:200], largest=self.settings.largest_mb), hint)


def _kernel_of(live: LiveSession) -> Kernel:
    if live.over:
        raise SessionEnded(live.grant.session)
    if live.kernel is None:
        raise SessionLost(live.grant.session, live.lost)
    return live.kernel
