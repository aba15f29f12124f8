"""One session's transcript, for the gateway that has the session in hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import orjson
import structlog

from gateway.saving import PASSING
from gateway.transcripts.errors import RecordDamaged
from gateway.transcripts.files import read_notebook, write_atomically
from gateway.transcripts.notebook import DirectStep, Entry, Header, Node, Said, iso, render
from gateway.transcripts.record import Head, Kind, Line, Place, Record
from gateway.transcripts.redaction import Redaction
from gateway.transcripts.view import Fold, cell_bytes, node_of, notebook_bytes

log = structlog.get_logger(__name__)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the database is told of a transcript; `seq` and `head`: number and hash of the record's last line."""

    session: str
    tenant: str
    role: str
    title: str
    state: str
    created: datetime
    seq: int
    head: str
    bytes: int
    cells: int
    messages: int
    tools: list[str]
    errors: list[str]
    #: What the model cost, US dollars.
    dollars: float


@dataclass
class Keeping:
    """How transcripts are kept."""

    redaction: Redaction
    #: The record is on the disk when `add` returns.
    sync: bool
    #: Larger notebooks are written later, bytes.
    at_once_bytes: int
    #: Told of every transcript that was added to.
    changed: Callable[[Transcript], None]
    #: Brings what was added to a record to where other gateways find it; None: there are none.
    mirror: Callable[[Record], Awaitable[None]] | None = None


class Transcript:
    """One session's. Entries are added in order."""

    def __init__(self, path: Path, header: Header, keeping: Keeping) -> None:
        """`path`: of the notebook."""
        self.path = path
        self.header = header
        self._keeping = keeping
        self.record = Record(path.with_suffix(".jsonl"), header.tenant, header.session, sync=keeping.sync)
        self.fold = Fold(self._node, header)
        #: Cell id to the cell as the notebook has it, while the notebook is small.
        self._made: dict[str, bytes] | None = {}
        #: The notebook on disk is behind the record; and how long it took to write, seconds.
        self.stale = False
        self.notebook_s = 0.0
        #: Other gateways cannot be told at present of what was added.
        self.unmirrored = False
        self.facts = self._facts()
        #: Held while it is added to.
        self.lock = asyncio.Lock()

    async def add(self, *entries: Entry, notebook: bool = True) -> None:
        """Add to the record; of a cell that ran before the last run stands. Cancelled, it still gets to the end.

        `notebook`: False leaves the notebook on disk for later even while it is small.

        Raises:
            OSError: the disk is full, say; nothing was added.
        """
        await self._to_its_end(lambda: self._add([(_kind(each), self._content(each)) for each in entries], notebook))

    async def set_header(self, header: Header) -> None:
        """Its state is another. Raises OSError."""
        self.header = header
        content = orjson.dumps({"state": header.state})
        await self._to_its_end(lambda: self._add([("state", content)]))

    async def write_notebook(self) -> None:
        """Bring the notebook on disk up to date. Raises OSError, TranscriptError."""
        if self.stale:
            await self._to_its_end(self._write_notebook, changes=False)

    def cell(self, id: str) -> Node | None:
        """The cell as the record has it; None for none, or none yet. Blocking."""
        found = self.fold.cells.get(id)
        return None if found is None else node_of(self.fold, found, id)

    def load(self, known: Head | None = None, *, repair: bool = False) -> None:
        """Take over what is on disk. Raises TranscriptError; RecordDamaged, also where `known` is not in it."""
        self.fold = Fold(self._node, self.header)
        self.record.restart()
        try:
            for line, place in self.record.scan(known, repair=repair):
                self.fold.take(line, place)
        except RecordDamaged as error:
            raise RecordDamaged(
                f"The record {self.record.path} is damaged: {error}. `omniops transcripts verify` says more."
            ) from None
        small = self.record.size <= self._keeping.at_once_bytes
        self.header, self.stale, self._made = self.fold.header, True, {} if small else None
        self.facts, self.unmirrored = self._facts(), self._keeping.mirror is not None

    def write_now(self) -> None:
        """`write_notebook`, for one who has the transcript alone. Blocking. Raises OSError, TranscriptError."""
        self._write_notebook()

    def take_over_notebook(self) -> None:
        """Begin the record with a notebook that is older than records are. Raises OSError, TranscriptError."""
        kinds: dict[str, Kind] = {"markdown": "message", "code": "cell"}
        node = read_notebook(self.path)
        self._add([(kinds[cell["cell_type"]], orjson.dumps(cell)) for cell in node["cells"]])
        self.facts, self.unmirrored = self._facts(), self._keeping.mirror is not None

    async def _to_its_end(self, work: Callable[[], None], *, changes: bool = True) -> None:
        async def locked() -> None:
            async with self.lock:
                await asyncio.to_thread(work)
                if changes:
                    await self._mirror()
            if changes:
                self._keeping.changed(self)

        await asyncio.shield(asyncio.ensure_future(locked()))

    async def mirror(self) -> None:
        """Other gateways know all of it. Raises what keeps it from that; Fenced."""
        async with self.lock:
            if self._keeping.mirror is not None:
                await self._keeping.mirror(self.record)
            self.unmirrored, self.facts = False, self._facts()

    async def _mirror(self) -> None:
        if self._keeping.mirror is None:
            return
        try:
            self.unmirrored = True
            await self._keeping.mirror(self.record)
            self.unmirrored, self.facts = False, self._facts()
        except PASSING as error:  # it is on the disk: `upkeep` sees to it that the others are told
            log.warning("a record is not in the database yet", path=str(self.record.path), error=str(error))

    def _add(self, entries: list[tuple[Kind, bytes]], notebook: bool = True) -> None:
        if self.record.head.seq == 0:
            entries = [("session", _session(self.header, self._keeping.redaction)), *entries]
        for line, place in self.record.append(entries):
            id = self.fold.take(line, place)
            if self._made is not None and id is not None:
                self._made.pop(id, None)
        self.stale = True
        if self._keeping.mirror is None:
            self.facts = self._facts()
        if not notebook:
            return
        try:
            self._write_small()
        except OSError as error:  # it is in the record; the notebook is written as soon as it can be
            log.warning("a notebook cannot be written", path=str(self.path), error=str(error))

    def _content(self, entry: Entry) -> bytes:
        return orjson.dumps(render(entry, redact=self._keeping.redaction.secret))

    def _write_small(self) -> None:
        """At once, while that costs little."""
        made = self._made
        if made is None:
            return
        for id, standing in self.fold.cells.items():
            if id not in made:
                made[id] = cell_bytes(self.fold, standing, id, self._keeping.redaction)
        if sum(map(len, made.values())) > self._keeping.at_once_bytes:
            self._made = None
            return
        ordered = (made[id] for id in self.fold.cells)
        self._write(notebook_bytes(self.fold, self.record.head, self._keeping.redaction, ordered))

    def _write_notebook(self) -> None:
        begun = time.monotonic()
        self._write_small()
        if self.stale:
            self._write(notebook_bytes(self.fold, self.record.head, self._keeping.redaction))
        self.notebook_s = time.monotonic() - begun

    def _facts(self) -> Facts:
        header, seen, head = self.fold.header, self.fold.seen, self.record.head
        return Facts(
            session=header.session,
            tenant=header.tenant,
            role=header.role,
            title=self._keeping.redaction.secret(header.title),
            state=header.state,
            created=header.created,
            seq=head.seq,
            head=head.hash,
            bytes=self.record.size,
            cells=seen.cells,
            messages=seen.messages,
            tools=sorted(seen.tools),
            errors=sorted(seen.errors),
            dollars=seen.dollars,
        )

    def _write(self, notebook: bytes) -> None:
        write_atomically(self.path, notebook, sync=False)
        self.stale = False

    def _node(self, place: Place) -> Node:
        return _loads(self.record.read(place))


def _kind(entry: Entry) -> Kind:
    if isinstance(entry, Said):
        return "message"
    return "step" if isinstance(entry, DirectStep) else "cell"


def _session(header: Header, redaction: Redaction) -> bytes:
    about = {"version": 1, "session": header.session, "tenant": header.tenant, "role": header.role}
    about |= {"created": iso(header.created), "title": redaction.secret(header.title), "state": header.state}
    return orjson.dumps(about)


def _loads(line: Line) -> Node:
    node: Node = orjson.loads(bytes(line.content))
    return node
