"""The work folder of a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio

from omniops_client import requests
from omniops_client._async.http import AsyncHttp
from omniops_client.core import PIECE
from omniops_client.types import File


class AsyncFiles:
    """Files of a session's kernel, which go with it. Paths are relative to its work folder: `data/orders.csv`."""

    def __init__(self, http: AsyncHttp, session: str) -> None:
        self._http = http
        self._session = session

    async def list(self, path: str = "") -> AsyncIterator[File]:
        """What is in a folder, by name, asked for by pages. Raises NotFound."""
        after: str | None = ""
        while after is not None:
            page = await self._http.call(requests.list_files(self._session, path, after))
            for file in page.files:
                yield file
            after = page.next

    async def read(self, path: str) -> bytes:
        """A whole file. Raises NotFound; Conflict for what is no file; TooLarge."""
        return await self._http.call(requests.read_file(self._session, path, 0))

    async def write(self, path: str, content: bytes | str) -> File:
        """Put a file there, in place of one that is there. Raises TooLarge: it, or the folder's room, is at its end."""
        data = content.encode() if isinstance(content, str) else content
        return await self._http.upload(requests.write_file(self._session, path), data)

    async def upload(self, source: Path | str, path: str | None = None) -> File:
        """Put a file of this machine there, by pieces; under its own name unless `path` says another."""
        source = Path(source)
        request = requests.write_file(self._session, path or source.name)
        async with await anyio.open_file(source, "rb") as file:

            async def pieces() -> AsyncIterator[bytes]:
                while piece := await file.read(PIECE):
                    yield piece

            return await self._http.upload(request, pieces())

    async def download(self, path: str, target: Path | str) -> Path:
        """Have a file on this machine, by pieces; nothing is left of one that breaks off."""
        target = Path(target)
        part = target.with_name(f"{target.name}.part")
        try:
            async with await anyio.open_file(part, "wb") as file:
                async for piece in self._http.download(requests.read_file(self._session, path, 0)):
                    await file.write(piece)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    async def delete(self, path: str) -> None:
        """Remove a file, a link, or an empty folder. Raises NotFound, Conflict."""
        await self._http.call(requests.delete_file(self._session, path))
