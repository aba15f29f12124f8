"""Transcripts on disk: `<root>/<tenant>/<session>.jsonl`, the record, and `.ipynb`, its notebook.

The record is what counts: only ever appended to, on the disk when `add` returns, chained by hashes. The notebook is
made from it: at once while it is small, else a little later (`upkeep`), whole or not at all. Disk work is done in
threads. Reading needs no gateway.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from gateway.transcripts.errors import RecordDamaged as RecordDamaged
from gateway.transcripts.errors import TranscriptError as TranscriptError
from gateway.transcripts.files import parse_notebook as parse_notebook
from gateway.transcripts.files import read_notebook as read_notebook
from gateway.transcripts.files import write_atomically as write_atomically
from gateway.transcripts.notebook import Header, Node, iso
from gateway.transcripts.output_file import NAME as OUTPUTS
from gateway.transcripts.output_file import Room, folder_of
from gateway.transcripts.overflow import Spooling
from gateway.transcripts.record import Head, read_lines
from gateway.transcripts.redaction import Redaction
from gateway.transcripts.transcript import Facts as Facts
from gateway.transcripts.transcript import Keeping, Transcript
from gateway.transcripts.view import node_of, notebook_bytes

Form = Literal["ipynb", "html", "jsonl"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")

#: As much of a notebook as its metadata may take: ids, a title, numbers.
_HEAD_BYTES = 16_384
LONG_AGO = datetime.fromtimestamp(0, UTC)
_BEFORE_METADATA = '{"metadata":'


class _RecordOf(msgspec.Struct, frozen=True):
    seq: int = 0
    hash: str = ""


class _About(msgspec.Struct, frozen=True):
    session: str
    tenant: str
    title: str
    state: str
    created: str
    cells: int = 0
    messages: int = 0
    record: _RecordOf = _RecordOf()
    masked: tuple[Literal["email", "phone", "card", "iban"], ...] = ()


class _Metadata(msgspec.Struct):
    omniops: _About


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


class TranscriptStore:
    """All transcripts of a data folder."""

    def __init__(
        self,
        root: Path,
        redaction: Redaction | None = None,
        *,
        sync: bool = True,
        at_once_kb: int = 64,
        room: Room | None = None,
    ) -> None:
        """`sync`: the record is on the disk when `add` returns; `at_once_kb`: larger notebooks are written later.

        `room`: for what cells print beyond what their record is to hold; None: as much as the disk has.
        """
        self.root = root
        self.redaction = redaction or Redaction()
        self.spooling = Spooling(self.redaction, room, sync=sync)
        self.keeping = Keeping(self.redaction, sync, at_once_kb * 1024, _nobody)

    def open(self, header: Header, known: Head | None = None, *, repair: bool = True) -> Transcript:
        """The session's transcript, continued if there is one. Blocking.

        `known`: a line that its record must have. `repair`: False for one who only reads.

        Raises:
            TranscriptError: it cannot be read; RecordDamaged: it is not as it was written.
        """
        path = self.path(header.tenant, header.session)
        transcript = Transcript(path, header, self.keeping)
        if transcript.record.path.exists():
            transcript.load(known, repair=repair)
        elif known is None and repair and path.exists():
            transcript.take_over_notebook()
        elif known is not None:
            raise RecordDamaged(
                f"The record {transcript.record.path} is gone; the database knows of {known.seq} lines."
            )
        return transcript

    def read(self, path: Path) -> Transcript:
        """What is on disk, for one who only reads. `path`: as `find` gives it. Blocking.

        Raises:
            TranscriptError: it cannot be read; RecordDamaged: it is not as it was written.
        """
        return self.open(Header(path.stem, path.parent.name, "agent", LONG_AGO), repair=False)

    def notebook(self, path: Path) -> bytes:
        """The notebook of a session as its record has it now. `path`: as `find` gives it. Blocking.

        Raises:
            TranscriptError
        """
        if not path.with_suffix(".jsonl").exists() and path.exists():  # older than records are
            return path.read_bytes()
        transcript = self.read(path)
        return notebook_bytes(transcript.fold, transcript.record.head, self.redaction)

    def cells(self, path: Path) -> list[Node]:
        """The cells and messages of a session as its record has them, nothing masked. Blocking; TranscriptError."""
        fold = self.read(path).fold
        return [node_of(fold, standing, id) for id, standing in fold.cells.items()]

    def export(self, path: Path, form: Form) -> bytes:
        """A session as a file to give away; "jsonl" is the record as it is, personal data included. Blocking.

        Raises:
            TranscriptError
        """
        if form == "jsonl":
            return b"".join(raw for raw, _ in read_lines(path.with_suffix(".jsonl")) if raw.endswith(b"\n"))
        notebook = self.notebook(path)
        if form == "ipynb":
            return notebook
        from gateway.transcripts.html import page  # takes a second to import

        return page(parse_notebook(notebook, path)).encode()

    def outputs(self, path: Path, name: str) -> Path:
        """A file of outputs of a session. `path`: as `find` gives it. Raises TranscriptError for none."""
        found = folder_of(path) / name
        if not OUTPUTS.match(name) or found.is_symlink() or not found.is_file():
            raise TranscriptError(f"Session {path.stem} has no outputs {name[:200]!r}.")
        return found

    def all_outputs(self, path: Path) -> list[Path]:
        """The session's files of outputs. `path`: as `find` gives it."""
        return sorted(each for each in folder_of(path).glob("*.jsonl") if OUTPUTS.match(each.name))

    def path(self, tenant: str, session: str) -> Path:
        """Where the notebook is. Raises TranscriptError for names that are no plain file names."""
        for name in (tenant, session):
            if not NAME.match(name):
                raise TranscriptError(f"{name!r} cannot be a tenant or session: letters, digits, '_', '-', '.' only.")
        return self.root / tenant / f"{session}.ipynb"

    def find(self, session: str, tenant: str | None = None) -> Path:
        """The notebook of a session, given by its id or by the beginning of it that is no other's.

        Raises:
            TranscriptError: there is none, or there are several.
        """
        if not NAME.match(session):
            raise TranscriptError(f"{session!r} is no session id. `omniops transcripts list` shows them.")
        if tenant is not None and NAME.match(tenant) and self.path(tenant, session).with_suffix(".jsonl").exists():
            return self.path(tenant, session)
        found = [path for path in self.files(tenant) if path.stem.startswith(session)]
        exact = [path for path in found if path.stem == session]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise TranscriptError(f"{len(found)} sessions begin with {session!r}: give more of the id.")
        raise TranscriptError(f"There is no transcript of a session {session!r} in {self.root}.")

    def summaries(self, tenant: str | None = None) -> list[Summary]:
        """All of a tenant's (None: everybody's), the newest first. Blocking. Files that are none are left out."""
        found = (_summary(path) or self._made_summary(path) for path in self.files(tenant))
        return sorted((each for each in found if each), key=lambda each: each.created, reverse=True)

    def _made_summary(self, path: Path) -> Summary | None:
        """Of a record that has no notebook, because its gateway was killed."""
        record = path.with_suffix(".jsonl")
        if path.exists() or not record.exists():
            return None
        try:
            fold = self.read(path).fold
        except RecordDamaged:
            return Summary(path.stem, path.parent.name, "", "damaged", "", 0, 0, record.stat().st_size, str(path))
        header, seen = fold.header, fold.seen
        size = record.stat().st_size
        created = iso(header.created)
        return Summary(
            header.session,
            header.tenant,
            header.title,
            header.state,
            created,
            seen.cells,
            seen.messages,
            size,
            str(path),
        )

    def files(self, tenant: str | None) -> Iterator[Path]:
        """The notebooks, also of records that have none yet."""
        if tenant is not None and not NAME.match(tenant):
            return
        ends = ("jsonl", "ipynb")
        found = {path.with_suffix(".ipynb") for end in ends for path in self.root.glob(f"{tenant or '*'}/*.{end}")}
        yield from sorted(path for path in found if NAME.match(path.name))


def _nobody(transcript: Transcript) -> None:
    return


def about_notebook(path: Path) -> _About | None:
    """What a notebook says of itself; of a large one no more than its beginning is read."""
    try:
        with open(path, "rb") as file:
            text = file.read(_HEAD_BYTES).decode(errors="ignore")
        metadata, _ = json.JSONDecoder().raw_decode(text, len(_BEFORE_METADATA))
        return msgspec.convert(metadata, _Metadata).omniops if text.startswith(_BEFORE_METADATA) else None
    except (OSError, ValueError):  # msgspec's own errors are ValueErrors
        return None


def _summary(path: Path) -> Summary | None:
    try:
        about, size = about_notebook(path), path.stat().st_size
    except OSError:
        return None
    if about is None:
        return None
    names = ("session", "tenant", "title", "state", "created", "cells", "messages")
    return Summary(**{name: getattr(about, name) for name in names}, bytes=size, path=str(path))
