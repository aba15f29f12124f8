"""The work folder of a kernel, from outside: what `sandbox.files` answers, held for a stranger's words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from kernel_pool.channels import decode
from kernel_pool.kernel import Kernel
from kernel_pool.types import Json, KernelGone, KernelPoolError

#: Bytes of a piece, and entries of a listing, at most: as `sandbox.files` has them.
PIECE = 1024 * 1024
ENTRIES = 1000
_NAME_CHARS = 1024

#: What a kernel says was wrong, and what it may say.
Trouble = Literal["not_found", "not_a_file", "not_a_folder", "not_empty", "bad_path", "full", "refused"]


class FileTrouble(KernelPoolError):
    """What was asked of a work folder cannot be done."""

    def __init__(self, trouble: Trouble, path: str) -> None:
        super().__init__(f"{trouble}: {path[:200]!r}")
        self.trouble = trouble
        self.path = path


class FilesSilent(KernelPoolError):
    """The kernel did not answer in time, or not as it should."""


class About(msgspec.Struct, frozen=True):
    """How something in the folder is. Sizes in bytes."""

    kind: Literal["file", "folder", "link", "other"]
    size: int
    modified_ns: int
    inode: int


class Entry(About, frozen=True):
    name: str


class _Answer(msgspec.Struct):
    error: str = ""
    entries: list[Entry] = []
    more: bool = False
    kind: Literal["file", "folder", "link", "other"] = "other"
    size: int = 0
    modified_ns: int = 0
    inode: int = 0

    def about(self) -> About:
        return About(self.kind, min(max(self.size, 0), 2**62), self.modified_ns, self.inode)


@dataclass(frozen=True)
class WorkFolder:
    """Paths are relative to it, parts separated by "/"; "" is the folder itself. All methods raise FileTrouble,
    FilesSilent, KernelGone."""

    kernel: Kernel
    #: Time for the answer to one piece.
    patience_s: float

    async def list(self, path: str, after: str = "", limit: int = ENTRIES) -> tuple[tuple[Entry, ...], bool]:
        """Entries of a folder by name, those after `after`; and whether there are more."""
        answer, _ = await self._ask(path, {"do": "list", "after": after, "limit": limit})
        names = [entry for entry in answer.entries[:limit] if 0 < len(entry.name) <= _NAME_CHARS]
        return tuple(entry for entry in names if "/" not in entry.name and "\0" not in entry.name), answer.more

    async def look(self, path: str) -> About:
        """How a file is."""
        answer, _ = await self._ask(path, {"do": "read", "offset": 0, "size": 0})
        return answer.about()

    async def read(self, path: str, about: About, offset: int, size: int) -> AsyncIterator[bytes]:
        """So many bytes of the file from `offset` on, by pieces. Raises FilesSilent where it is another by now."""
        while size > 0:
            answer, data = await self._ask(path, {"do": "read", "offset": offset, "size": min(size, PIECE)})
            data = data[: min(size, PIECE)]
            if answer.about() != about or not data:
                raise FilesSilent(f"The file {path[:200]!r} was changed while it was read.")
            offset, size = offset + len(data), size - len(data)
            yield data

    async def write(self, path: str, pieces: AsyncIterator[bytes]) -> About:
        """Put a file there, in place of one that is; what is cut short leaves nothing."""
        upload, offset = os.urandom(12).hex(), 0
        try:
            async for piece in pieces:
                for at in range(0, len(piece), PIECE):
                    part = piece[at : at + PIECE]
                    await self._ask(path, {"do": "write", "upload": upload, "offset": offset}, part)
                    offset += len(part)
            if offset == 0:
                await self._ask(path, {"do": "write", "upload": upload, "offset": 0})
            answer, _ = await self._ask(path, {"do": "finish", "upload": upload})
        except BaseException as error:
            if not isinstance(error, KernelGone | FilesSilent):
                dropping = asyncio.ensure_future(self._drop(path, upload))
                await asyncio.shield(dropping)
            raise
        return answer.about()

    async def delete(self, path: str) -> None:
        """A file, a link, or an empty folder."""
        await self._ask(path, {"do": "delete"})

    async def _drop(self, path: str, upload: str) -> None:
        try:
            await self._ask(path, {"do": "drop", "upload": upload})
        except KernelPoolError:
            return  # it stays out of listings, and goes with the kernel

    async def _ask(self, path: str, asked: Mapping[str, Json], data: bytes = b"") -> tuple[_Answer, bytes]:
        kernel = self.kernel
        if kernel.exited.done():
            raise KernelGone(kernel.exited.result())
        try:
            async with asyncio.timeout(self.patience_s), kernel.in_use():
                message = await kernel.channels.request(
                    "control", "files_request", {**asked, "path": path}, buffers=(data,) if data else ()
                )
        except TimeoutError:
            raise FilesSilent(f"The kernel did not answer within {self.patience_s:g} s.") from None
        answer = decode(msgspec.json.encode(message.content), _Answer)
        if answer is None:
            raise FilesSilent("What the kernel answers about its files cannot be read.")
        if answer.error:
            raise FileTrouble(_trouble(answer.error), path)
        return answer, message.buffers[0] if message.buffers else b""


def _trouble(said: str) -> Trouble:
    try:
        trouble: Trouble = msgspec.convert(said, Trouble)
    except msgspec.ValidationError:
        return "refused"
    return trouble
