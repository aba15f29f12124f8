"""Transcripts on disk: `<root>/<tenant>/<session>.ipynb`, whole or not at all, and there after a power cut.

A file is written beside its place, synced, renamed over it, and the folder synced: readers see the last complete one.
Disk work is done in threads. Reading needs no gateway.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import orjson

from gateway.transcripts.notebook import Entry, Header, Node, assemble, cell_id, render

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


class TranscriptError(Exception):
    """A transcript cannot be found or read. The message says which and what to do."""


class _About(msgspec.Struct):
    session: str
    tenant: str
    title: str
    state: str
    created: str


class _Metadata(msgspec.Struct):
    omniops: _About


class _ListedCell(msgspec.Struct):
    cell_type: str


class _Listed(msgspec.Struct):
    """As much of a notebook as a list needs."""

    metadata: _Metadata
    cells: list[_ListedCell]


class Summary(msgspec.Struct, frozen=True):
    """One line of a list of transcripts."""

    session: str
    tenant: str
    title: str
    state: str
    created: str
    cells: int
    messages: int
    bytes: int
    path: str


class Transcript:
    """One session's. Entries are added in order; `save` puts all of them on disk."""

    def __init__(self, path: Path, header: Header, redact: Callable[[str], str]) -> None:
        self.path = path
        self.header = header
        self._redact = redact
        #: cell id to the cell as JSON text: made once, for the file is written anew after every cell.
        self._cells: dict[str, bytes] = {}
        self._lock = asyncio.Lock()

    async def add(self, *entries: Entry) -> None:
        """Add (or, for a cell that ran before, replace) and save. Cancelled, it still gets to the end."""
        await asyncio.shield(asyncio.ensure_future(self._add(entries)))

    async def set_header(self, header: Header) -> None:
        self.header = header
        await self.add()

    async def _add(self, entries: tuple[Entry, ...]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._render_and_write, entries)

    def _render_and_write(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            key = cell_id(entry)
            before = self._cells.get(key)
            node = render(entry, None if before is None else orjson.loads(before), self._redact)
            self._cells[key] = _dump(node)
        frame = assemble(self.header, [], self._redact)
        head = _dump(frame["metadata"])
        body = b'{"metadata":' + head + b',"nbformat":4,"nbformat_minor":5,"cells":['
        write_atomically(self.path, body + b",\n".join(self._cells.values()) + b"]}\n")

    def cell(self, id: str) -> Node | None:
        """The cell as it stands in the notebook; None for none, or none yet."""
        found = self._cells.get(id)
        return None if found is None else orjson.loads(found)

    def load(self) -> None:
        """Take over what an earlier gateway wrote. Raises TranscriptError."""
        for cell in read_notebook(self.path)["cells"]:
            self._cells[cell["id"]] = _dump(cell)


class TranscriptStore:
    """All transcripts of a data folder."""

    def __init__(self, root: Path, redact: Callable[[str], str] = str) -> None:
        self.root = root
        self._redact = redact

    def open(self, header: Header) -> Transcript:
        """The session's transcript, continued if there is one. Blocking; raises TranscriptError."""
        path = self.path(header.tenant, header.session)
        transcript = Transcript(path, header, self._redact)
        if path.exists():
            transcript.load()
        return transcript

    def path(self, tenant: str, session: str) -> Path:
        """Raises TranscriptError for names that are no plain file names."""
        for name in (tenant, session):
            if not NAME.match(name):
                raise TranscriptError(f"{name!r} cannot be a tenant or session: letters, digits, '_', '-', '.' only.")
        return self.root / tenant / f"{session}.ipynb"

    def find(self, session: str, tenant: str | None = None) -> Path:
        """The file of a session, given by its id or by the beginning of it that is no other's.

        Raises:
            TranscriptError: there is none, or there are several.
        """
        if not NAME.match(session):
            raise TranscriptError(f"{session!r} is no session id. `omniops transcripts list` shows them.")
        found = [path for path in self._files(tenant) if path.stem.startswith(session)]
        exact = [path for path in found if path.stem == session]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise TranscriptError(f"{len(found)} sessions begin with {session!r}: give more of the id.")
        raise TranscriptError(f"There is no transcript of a session {session!r} in {self.root}.")

    def summaries(self, tenant: str | None = None) -> list[Summary]:
        """All of a tenant's (None: everybody's), the newest first. Blocking. Files that are none are left out."""
        found = (_summary(path) for path in self._files(tenant))
        return sorted((each for each in found if each), key=lambda each: each.created, reverse=True)

    def _files(self, tenant: str | None) -> Iterator[Path]:
        if tenant is not None and not NAME.match(tenant):
            return
        yield from sorted(self.root.glob(f"{tenant or '*'}/*.ipynb"))


def read_notebook(path: Path) -> Node:
    """Raises TranscriptError."""
    try:
        node = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise TranscriptError(f"There is no transcript {path}.") from None
    except (OSError, ValueError) as error:
        raise TranscriptError(f"The transcript {path} cannot be read: {error}.") from error
    if not isinstance(node, dict) or not isinstance(node.get("cells"), list):
        raise TranscriptError(f"{path} is no notebook.")
    return node


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by a complete one, for this user alone, synced to disk. Blocking; raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _dump(node: object) -> bytes:
    return orjson.dumps(node, option=orjson.OPT_INDENT_2)


def _summary(path: Path) -> Summary | None:
    try:
        listed = msgspec.json.decode(path.read_bytes(), type=_Listed)
        about = listed.metadata.omniops
        kinds = [cell.cell_type for cell in listed.cells]
        return Summary(
            session=about.session,
            tenant=about.tenant,
            title=about.title,
            state=about.state,
            created=about.created,
            cells=kinds.count("code"),
            messages=kinds.count("markdown"),
            bytes=path.stat().st_size,
            path=str(path),
        )
    except (OSError, msgspec.MsgspecError):
        return None
