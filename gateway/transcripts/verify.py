"""Whether a transcript is as it was written: its record and its outputs, byte by byte, and the notebook of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson

from gateway.transcripts.errors import RecordDamaged, TranscriptError
from gateway.transcripts.notebook import Header, Node
from gateway.transcripts.output_file import problem_of
from gateway.transcripts.record import Head, Line, Place, Record, check_line, genesis, read_lines
from gateway.transcripts.redaction import Redaction
from gateway.transcripts.store import LONG_AGO, about_notebook
from gateway.transcripts.view import Fold, notebook_bytes


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one transcript."""

    session: str
    tenant: str
    #: Nothing is wrong.
    ok: bool
    #: What is wrong.
    problems: list[str]
    #: Lines of the record that are as they were written, and the hash of the last of them.
    lines: int
    head: str
    #: Of these, whose contents were erased.
    erased: int
    #: The database's last line was compared.
    compared: bool


def verify(path: Path, known: Head | None, *, compare: bool = True) -> Verification:
    """Look at every byte of a session's record and notebook. `path`: of the notebook. Blocking.

    `known`: the last line as the database has it; without `compare` there is nobody to ask, and a record that was cut
    short, or replaced as a whole, is not found out.
    """
    tenant, session = path.parent.name, path.stem
    record = Record(path.with_suffix(".jsonl"), tenant, session)
    look = _Look(path, Head(0, genesis(tenant, session)), known if compare else None)
    try:
        look.lines(record.path)
        if compare:
            look.compare()
        look.tombstones()
        look.notebook(path, record)
    except TranscriptError as error:
        look.problems.append(str(error))
    return Verification(
        session=session,
        tenant=tenant,
        ok=not look.problems,
        problems=look.problems,
        lines=look.head.seq,
        head=look.head.hash,
        erased=len(look.erased),
        compared=compare,
    )


class _Look:
    """One look at a record. Methods raise TranscriptError where there is no going on."""

    def __init__(self, notebook: Path, first: Head, known: Head | None) -> None:
        self._notebook = notebook
        self.head = first
        self.problems: list[str] = []
        #: Numbers of lines without their contents, and of those that an erasure names.
        self.erased: set[int] = set()
        self._named: set[int] = set()
        self._known = known
        self._known_hash = ""

    def lines(self, path: Path) -> None:
        """The chain."""
        for raw, _ in read_lines(path):
            if not raw.endswith(b"\n"):
                raise RecordDamaged(
                    f"the last line is not whole ({len(raw)} bytes after line {self.head.seq}): its gateway was killed "
                    "while it wrote, or something was cut off"
                )
            line = check_line(raw, self.head)
            self.head = Head(line.seq, line.hash)
            if self._known is not None and line.seq == self._known.seq:
                self._known_hash = line.hash
            self._take(line)
        if self.head.seq == 0:
            raise RecordDamaged("the record is empty")

    def _take(self, line: Line) -> None:
        if line.seq == 1 and line.kind != "session":
            self.problems.append("line 1 does not say which session this is")
        if line.erased:
            self.erased.add(line.seq)
        elif line.kind == "erasure":
            self._named.update(orjson.loads(bytes(line.content))["lines"])
        elif line.kind == "cell" and b'"spool"' in bytes(line.content):
            spooled = orjson.loads(bytes(line.content))["metadata"].get("omniops", {}).get("spool")
            if spooled and (problem := problem_of(self._notebook, spooled)):
                self.problems.append(problem)

    def compare(self) -> None:
        """With what the database knows."""
        if self._known is None:
            self.problems.append("the database does not know this record")
        elif self.head.seq < self._known.seq:
            self.problems.append(
                f"the record ends with line {self.head.seq}, and the database knows of line {self._known.seq}: lines "
                "are gone from its end"
            )
        elif self._known_hash != self._known.hash:
            self.problems.append(f"line {self._known.seq} is not the one that the database knows")
        elif self.head.seq > self._known.seq:
            self.problems.append(
                f"{self.head.seq - self._known.seq} lines after line {self._known.seq} are not known to the database: "
                "its gateway was killed just then, or somebody has added them"
            )

    def tombstones(self) -> None:
        """Nothing is gone but what an erasure names."""
        for seq in sorted(self.erased - self._named):
            self.problems.append(f"the content of line {seq} is gone, and no erasure names it")

    def notebook(self, path: Path, record: Record) -> None:
        """The notebook is the one of this record as it was when it was made. One that is not there can be made."""
        if not path.exists():
            return
        about = about_notebook(path)
        if about is None or not about.record.hash:
            self.problems.append(f"the notebook {path.name} does not say what it was made from")
            return

        def node(place: Place) -> Node:
            content: Node = orjson.loads(bytes(record.read(place).content))
            return content

        fold = Fold(node, Header(path.stem, path.parent.name, "agent", LONG_AGO))
        for line, place in record.scan():
            fold.take(line, place)
            if line.seq == about.record.seq:
                break
        made = notebook_bytes(fold, record.head, Redaction(kinds=about.masked))
        if made != path.read_bytes():
            self.problems.append(f"the notebook {path.name} is not the one of this record: it was changed")
