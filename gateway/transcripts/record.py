"""The record of a session: an append-only file, each line bound to all lines before it by SHA-256.

A line is a JSON object, always written in the same bytes:

    {"seq":2,"prev":"<hash of line 1>","at":"...","kind":"cell","digest":"...","hash":"...","salt":"...","content":{}}

`digest` is over salt and content, `hash` over all that stands before it. So a content can be erased, with its salt, and
the chain still verifies; without the salt a digest does not tell what it was of. The first line's `prev` follows from
tenant and session: a record cannot be passed off as another's. Blocking.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import msgspec
import orjson

from gateway.transcripts.errors import RecordDamaged, TranscriptError

#: session: what it is; state: what became of it; message, cell, step: what happened; repair: a torn last line was cut
#: off; erasure: which contents were removed, when and why.
Kind = Literal["session", "state", "message", "cell", "step", "repair", "erasure"]
KINDS: frozenset[str] = frozenset(get_args(Kind))

_SALT_BYTES = 16


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line. `salt` and `content` are empty where they were erased."""

    seq: int
    prev: str
    at: str
    kind: str
    digest: str
    hash: str
    salt: str = ""
    content: msgspec.Raw = msgspec.Raw()

    @property
    def erased(self) -> bool:
        return not self.salt

    def encode(self) -> bytes:
        """The line as it stands in the file."""
        rest = b"" if self.erased else b',"salt":"' + self.salt.encode() + b'","content":' + bytes(self.content)
        return _bound(self) + b',"hash":"' + self.hash.encode() + b'"' + rest + b"}\n"


@dataclass(frozen=True)
class Place:
    """Where a line stands in its file, bytes."""

    offset: int
    length: int


@dataclass(frozen=True)
class Head:
    """The last line of a record: its number and its hash. Number 0: there is none yet."""

    seq: int
    hash: str


def genesis(tenant: str, session: str) -> str:
    """What the first line of a session's record is bound to."""
    return hashlib.sha256(f"omniops transcript 1\n{tenant}\n{session}".encode()).hexdigest()


def make_line(head: Head, kind: Kind, content: bytes) -> Line:
    """The line that follows on `head`. `content`: JSON."""
    salt = secrets.token_hex(_SALT_BYTES)
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = Line(
        seq=head.seq + 1,
        prev=head.hash,
        at=at,
        kind=kind,
        digest=_digest(salt, content),
        hash="",
        salt=salt,
        content=msgspec.Raw(content),
    )
    return msgspec.structs.replace(line, hash=_hash(line))


def erase_line(line: Line) -> Line:
    """The same line without what it said: a tombstone, with the same hash."""
    return msgspec.structs.replace(line, salt="", content=msgspec.Raw())


def check_line(raw: bytes, head: Head) -> Line:
    """The line that `raw` is, if it is whole, unchanged, and follows on `head`.

    Raises:
        RecordDamaged: with what is wrong.
    """
    number = head.seq + 1
    try:
        line = msgspec.json.decode(raw, type=Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise RecordDamaged(f"line {number} is no line of a record") from None
    if line.seq != number:
        raise RecordDamaged(f"line {number} has number {line.seq}")
    if line.prev != head.hash:
        raise RecordDamaged(f"line {number} does not follow on the line before it")
    if line.kind not in KINDS:
        raise RecordDamaged(f"line {number} is of no known kind")
    try:
        if line.hash != _hash(line):
            raise RecordDamaged(f"line {number} was changed: its hash is another")
        if not line.erased and line.digest != _digest(line.salt, bytes(line.content)):
            raise RecordDamaged(f"line {number} was changed: its content is not the one that was written")
        whole = line.encode()
    except (UnicodeEncodeError, orjson.JSONEncodeError):  # a lone surrogate, which we never write
        raise RecordDamaged(f"line {number} was changed: it holds what no line holds") from None
    if whole != raw:
        raise RecordDamaged(f"line {number} was changed: it is not written as it was")
    return line


def read_lines(path: Path) -> Iterator[tuple[bytes, Place]]:
    """The lines as they are, the last one maybe without its end. Raises TranscriptError."""
    try:
        with open(path, "rb", opener=_no_link) as file:
            offset = 0
            for raw in file:
                yield raw, Place(offset, len(raw))
                offset += len(raw)
    except FileNotFoundError:
        raise TranscriptError(f"There is no record {path}.") from None
    except OSError as error:
        raise TranscriptError(f"The record {path} cannot be read: {error.strerror}.") from error


class Record:
    """One session's record, for its one writer."""

    def __init__(self, path: Path, tenant: str, session: str, *, sync: bool = True) -> None:
        """`sync`: lines are on the disk, not only in the system's memory, when `append` returns."""
        self.path = path
        self.session = session
        self._of = (tenant, session)
        self._genesis = Head(0, genesis(tenant, session))
        self.head = self._genesis
        #: Bytes of the file.
        self.size = 0
        self._sync = sync

    def again(self) -> Record:
        """The same file, for somebody else to read."""
        return Record(self.path, *self._of)

    def restart(self) -> None:
        """As before the first line, to be scanned anew."""
        self.head, self.size = self._genesis, 0

    def scan(self, known: Head | None = None, *, repair: bool = False) -> Iterator[tuple[Line, Place]]:
        """Every line, checked; afterwards `head` is the last of them. `known`: a head that the record must have.

        With `repair`, for the record's writer, a torn last line is cut off and noted; else it is passed over: whoever
        wrote it was killed in the middle and has told nobody of it.

        Raises:
            RecordDamaged: a line was changed, or lines are gone.
            TranscriptError: the file cannot be read.
        """
        torn: tuple[bytes, Place] | None = None
        for raw, place in read_lines(self.path):
            if not raw.endswith(b"\n"):
                torn = raw, place
                break
            line = check_line(raw, self.head)
            self.head, self.size = Head(line.seq, line.hash), place.offset + place.length
            if known is not None and line.seq == known.seq and line.hash != known.hash:
                raise RecordDamaged(f"line {line.seq} is not the one that the database knows")
            yield line, place
        if known is not None and self.head.seq < known.seq:
            raise RecordDamaged(f"it ends with line {self.head.seq}, and the database knows of line {known.seq}")
        if torn is not None and repair:
            raw, place = torn
            os.truncate(self.path, place.offset)
            note = {"cut_bytes": len(raw), "cut_sha256": hashlib.sha256(raw).hexdigest()}
            yield from self.append([("repair", orjson.dumps(note))])

    def append(self, entries: Sequence[tuple[Kind, bytes]]) -> list[tuple[Line, Place]]:
        """Add lines, all or none of them.

        Raises:
            OSError: the disk is full, say; the record is as before.
        """
        head, lines = self.head, []
        for kind, content in entries:
            lines.append(line := make_line(head, kind, content))
            head = Head(line.seq, line.hash)
        encoded = [line.encode() for line in lines]
        offset = self._write(b"".join(encoded))
        self.head = head
        placed = []
        for line, raw in zip(lines, encoded, strict=True):
            placed.append((line, Place(offset, len(raw))))
            offset += len(raw)
        self.size = offset
        return placed

    def rewrite(self, lines: Iterator[bytes]) -> None:
        """Put a file of other lines, of the same chain, in its place, synced. Raises OSError."""
        beside = self.path.with_name(f".{self.path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(beside, flags, 0o600), "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self.path)
        _sync_folder(self.path.parent)

    def read(self, place: Place) -> Line:
        """The line at a place. Raises TranscriptError."""
        try:
            with open(self.path, "rb", opener=_no_link) as file:
                file.seek(place.offset)
                return msgspec.json.decode(file.read(place.length), type=Line)
        except (OSError, msgspec.MsgspecError) as error:
            raise TranscriptError(f"The record {self.path} cannot be read: {error}.") from error

    def _write(self, data: bytes) -> int:
        """At the end of the file; where it began."""
        new = not self.path.exists()
        if new:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            start = os.fstat(descriptor).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                if self._sync:
                    os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, start)
                raise
        finally:
            os.close(descriptor)
        if new and self._sync:
            _sync_folder(self.path.parent)
        return start


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bound(line: Line) -> bytes:
    """What the line's hash is over, without the closing brace."""
    head = {"seq": line.seq, "prev": line.prev, "at": line.at, "kind": line.kind, "digest": line.digest}
    return orjson.dumps(head)[:-1]


def _hash(line: Line) -> str:
    return hashlib.sha256(_bound(line)).hexdigest()


def _digest(salt: str, content: bytes) -> str:
    return hashlib.sha256(salt.encode() + b"\n" + content).hexdigest()
