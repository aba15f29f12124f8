"""Rows on their way to the database, in a file of this machine: what a killed gateway leaves, the next one sends.

A row is in the page cache when `keep` returns, so it outlives this process, not the machine; nothing waits for a disk.
Confirmed rows go at once: a file is emptied, or removed, as soon as the database has all that is in it.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: A row's fields, as the database's wire takes them.
Fields = Sequence[bytes | bytearray | None]

#: Bytes after which rows go to another file, so that none grows for ever where there is always a row under way.
SEGMENT = 16 * 1024 * 1024

#: Ahead of each row, with the number of its fields; a file of another version is not read.
_MAGIC = b"row1"
_HEAD = struct.Struct("<4sI")


@dataclass
class Segment:
    """One file, and how many of its rows the database has not confirmed."""

    path: Path
    descriptor: int
    size: int = 0
    pending: int = 0


class Spool:
    """The files of one folder, which one gateway at a time has. Methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where the folder cannot be made."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._current: Segment | None = None
        self._number = max((int(path.stem) for path in self._files()), default=0)

    def left(self) -> Iterator[tuple[Segment, list[bytes | None]]]:
        """What earlier gateways left, in order; `done` is due for each. What was half written counts as never kept.

        To be asked before the first `keep`. Raises OSError.
        """
        for path in sorted(self._files(), key=lambda path: int(path.stem)):
            rows = list(_parse(path.read_bytes()))
            segment = Segment(path, -1, pending=len(rows))
            if not rows:
                self._remove(segment)
            for row in rows:
                yield segment, row

    def keep(self, fields: Fields) -> Segment:
        """Raises OSError: the row is not kept."""
        lengths = [-1 if field is None else len(field) for field in fields]
        head = _HEAD.pack(_MAGIC, len(fields)) + struct.pack(f"<{len(fields)}q", *lengths)
        with self._lock:
            segment = self._current
            if segment is None or segment.size > SEGMENT:
                segment = self._open()
            try:
                segment.size += _write(segment.descriptor, [head, *(field for field in fields if field)])
            except BaseException:
                os.ftruncate(segment.descriptor, segment.size)
                raise
            segment.pending += 1
            return segment

    def done(self, segment: Segment) -> None:
        """The database has one more of the segment's rows. Raises OSError."""
        with self._lock:
            segment.pending -= 1
            if segment.pending:
                return
            if segment is self._current:
                os.ftruncate(segment.descriptor, 0)
                segment.size = 0
            else:
                self._remove(segment)

    def close(self) -> None:
        """What is not confirmed stays for the next gateway."""
        with self._lock:
            current, self._current = self._current, None
            if current is not None and not current.pending:
                self._remove(current)
            elif current is not None:
                os.close(current.descriptor)
                current.descriptor = -1

    def _files(self) -> list[Path]:
        return [path for path in self._folder.glob("*.rows") if path.stem.isdecimal()]

    def _open(self) -> Segment:
        path = self._folder / f"{self._number + 1}.rows"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        self._number += 1
        earlier, self._current = self._current, Segment(path, descriptor)
        if earlier is not None and not earlier.pending:
            self._remove(earlier)
        return self._current

    def _remove(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        if segment.descriptor >= 0:
            os.close(segment.descriptor)
            segment.descriptor = -1


def _write(descriptor: int, pieces: list[bytes | bytearray]) -> int:
    """All of it; returns the number of bytes."""
    size = sum(map(len, pieces))
    written = os.writev(descriptor, pieces)
    if written < size:  # a full disk says so at the next attempt
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    return size


def _parse(data: bytes) -> Iterator[list[bytes | None]]:
    at = 0
    while at + _HEAD.size <= len(data):
        magic, count = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if magic != _MAGIC or at + 8 * count > len(data):
            return
        lengths = struct.unpack_from(f"<{count}q", data, at)
        at += 8 * count
        if at + sum(length for length in lengths if length > 0) > len(data):
            return
        row: list[bytes | None] = []
        for length in lengths:
            row.append(None if length < 0 else data[at : at + length])
            at += max(0, length)
        yield row
