# Made of omniops_client/_async by `make client`. Do not change it here.
"""The work folder of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omniops_client import requests
from omniops_client._sync.http import Http
from omniops_client.core import PIECE
from omniops_client.types import File


class Files:
    """Files of a session's kernel, which go with it. Paths are relative to its work folder: `data/orders.csv`."""

    def __init__(self, http: Http, session: str) -> None:
        self._http = http
        self._session = session

    def list(self, path: str = "") -> Iterator[File]:
        """What is in a folder, by name, asked for by pages. Raises NotFound."""
        after: str | None = ""
        while after is not None:
            page = self._http.call(requests.list_files(self._session, path, after))
            for file in page.files:
                yield file
            after = page.next

    def read(self, path: str) -> bytes:
        """A whole file. Raises NotFound; Conflict for what is no file; TooLarge."""
        return self._http.call(requests.read_file(self._session, path, 0))

    def write(self, path: str, content: bytes | str) -> File:
        """Put a file there, in place of one that is there. Raises TooLarge: it, or the folder's room, is at its end."""
        data = content.encode() if isinstance(content, str) else content
        return self._http.upload(requests.write_file(self._session, path), data)

    def upload(self, source: Path | str, path: str | None = None) -> File:
        """Put a file of this machine there, by pieces; under its own name unless `path` says another."""
        source = Path(source)
        request = requests.write_file(self._session, path or source.name)
        with open(source, "rb") as file:

            def pieces() -> Iterator[bytes]:
                while piece := file.read(PIECE):
                    yield piece

            return self._http.upload(request, pieces())

    def download(self, path: str, target: Path | str) -> Path:
        """Have a file on this machine, by pieces; nothing is left of one that breaks off."""
        target = Path(target)
        part = target.with_name(f"{target.name}.part")
        try:
            with open(part, "wb") as file:
                for piece in self._http.download(requests.read_file(self._session, path, 0)):
                    file.write(piece)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def delete(self, path: str) -> None:
        """Remove a file, a link, or an empty folder. Raises NotFound, Conflict."""
        self._http.call(requests.delete_file(self._session, path))
