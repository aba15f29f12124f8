"""A file of all outputs of one cell, in order: `<root>/<tenant>/<session>.outputs/<cell>-<run>.jsonl`.

An output a line, as nbformat has it; a stream in pieces of one size, wherever the kernel cut it, so that two files are
the same where the outputs are. Displays that are updated later have their `transient.display_id`, the updates are lines
of the type `update_display_data`. Redacted as nothing but views of a record are: neither secrets nor personal data.
Blocking, all of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import orjson

from gateway.transcripts.clean import Json, clean_output, clean_text
from gateway.transcripts.files import write_atomically
from gateway.transcripts.redaction import Flow, Redaction
from gateway.types import Spooled

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\.jsonl\Z")

#: Characters of a stream's text in one line.
_PIECE = 64 * 1024
#: The end of it that the record shows, characters.
_TAIL = 8 * 1024
_READ = 1024 * 1024
#: Bytes between two marks of how far a file has come. A kernel keeps much more than that.
_MARK_EVERY = 1024 * 1024


class NoRoom(Exception):
    """More may not be written. The message is the beginning of a sentence for people."""


def folder_of(notebook: Path) -> Path:
    """Where the outputs of a session are."""
    return notebook.with_suffix(".outputs")


def digest_of(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while block := file.read(_READ):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def problem_of(notebook: Path, spooled: Mapping[str, Json]) -> str:
    """What is wrong with a file that a record names; "" for nothing."""
    name = str(spooled.get("file", ""))
    if not NAME.match(name):
        return f"{name!r} is no file of outputs"
    try:
        digest, size = digest_of(folder_of(notebook) / name)
    except FileNotFoundError:
        return f"the outputs {name} are gone"
    except OSError as error:
        return f"the outputs {name} cannot be read: {error.strerror}"
    if (digest, size) != (spooled.get("sha256"), spooled.get("bytes")):
        return f"the outputs {name} were changed: they are not what was written"
    return ""


class Room:
    """How much outputs may take on the disk: of a session, of a tenant, and for good."""

    def __init__(self, root: Path, *, session_mb: int, tenant_mb: int, free_mb: int) -> None:
        """`free_mb`: is left free on the disk, MiB."""
        self._root = root
        self._session_mb, self._tenant_mb, self._free_mb = session_mb, tenant_mb, free_mb
        self._sizes: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def take(self, tenant: str, session: str, size: int) -> None:
        """So many bytes more. Raises NoRoom."""
        with self._lock:
            sizes = self._of(tenant)
            if sizes.get(session, 0) + size > self._session_mb * 2**20:
                raise NoRoom(f"the session's outputs are more than {self._session_mb} MiB (transcripts.session_mb)")
            if sum(sizes.values()) + size > self._tenant_mb * 2**20:
                raise NoRoom(f"the tenant's outputs are more than {self._tenant_mb} MiB (transcripts.tenant_mb)")
            disk = os.statvfs(self._root)
            if disk.f_bavail * disk.f_frsize < size + self._free_mb * 2**20:
                raise NoRoom(f"the disk of {self._root} has less than {self._free_mb} MiB left (transcripts.free_mb)")
            sizes[session] = sizes.get(session, 0) + size

    def give_back(self, tenant: str, session: str, size: int) -> None:
        with self._lock:
            sizes = self._of(tenant)
            sizes[session] = max(0, sizes.get(session, 0) - size)

    def forget(self, tenant: str) -> None:
        """Files of it were removed: look anew."""
        with self._lock:
            self._sizes.pop(tenant, None)

    def _of(self, tenant: str) -> dict[str, int]:
        if tenant not in self._sizes:
            folders = (self._root / tenant).glob("*.outputs")
            self._sizes[tenant] = {each.stem: sum(f.stat().st_size for f in each.iterdir()) for each in folders}
        return self._sizes[tenant]


def remove_outputs(notebook: Path) -> None:
    """Raises OSError."""
    folder = folder_of(notebook)
    if folder.exists():
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Ended:
    """A file that is whole. `tail`: what its streams ended with."""

    spooled: Spooled
    tail: tuple[dict[str, Json], ...]


class _Mark(msgspec.Struct):
    """How far a file has come, for a gateway that goes on with it: what waits in memory for its lines is here."""

    position: int
    size: int
    name: str
    text: str
    line: str


class OutputFile:
    """One that is being written; without a `path` it is only counted and hashed."""

    def __init__(self, path: Path | None, redaction: Redaction, room: Room | None, *, sync: bool = True) -> None:
        self._path = path
        self._redaction = redaction
        self._room = room
        self._sync = sync
        self._descriptor = -1
        self.size = self._lines = 0
        self._digest = hashlib.sha256()
        self._flow = Flow(redaction)
        self._begin()

    def open(self) -> None:
        """A new file. Raises OSError."""
        self._open(os.O_TRUNC)

    def go_on(self) -> int:
        """The file that a gateway before has left, from its last mark on; the cell's position there, 0 for no file.

        Raises OSError.
        """
        mark = self._marked()
        if self._path is None or mark is None:
            return 0
        self._open(0)
        os.ftruncate(self._descriptor, mark.size)
        for data in _raw_lines(self._path):
            self._digest.update(data)
            self.size += len(data)
            self._lines += 1
            output = orjson.loads(data)
            if output["output_type"] == "stream":
                self._note(output["name"], output["text"])
        self._name, self._text, self._marked_at = mark.name, mark.text, self.size
        self._flow.take_over(mark.line)
        return mark.position

    def mark(self, position: int) -> None:
        """A gateway that comes after this one goes on from here: all up to `position` was taken. Raises OSError."""
        if self._path is None or self.size - self._marked_at < _MARK_EVERY:
            return
        # what may be half a secret is written nowhere: it has to come again (counted as `sandbox/backlog.py` does)
        position -= len(orjson.dumps(self._flow.suspect)) - 2
        mark = _Mark(position, self.size, self._name, self._text, self._flow.line)
        write_atomically(self._beside(".at"), msgspec.json.encode(mark), sync=False)
        self._marked_at = self.size

    def _marked(self) -> _Mark | None:
        try:
            mark = msgspec.json.decode(self._beside(".at").read_bytes(), type=_Mark)
            whole = self._path is not None and 0 <= mark.size <= self._path.stat(follow_symlinks=False).st_size
        except (OSError, msgspec.MsgspecError):
            return None
        return mark if whole else None

    def _beside(self, end: str) -> Path:
        path = self._path or Path()
        return path.with_name(f".{path.name}{end}")

    def _open(self, more: int) -> None:
        if self._path is not None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | more
            self._descriptor = os.open(self._path, flags, 0o600)

    def _begin(self) -> None:
        self._name = ""
        self._flow = Flow(self._redaction)
        self._text = ""
        self._digest = hashlib.sha256()
        self._tail: list[list[str]] = []
        self.size = self._lines = 0
        #: The first mark comes with the first line.
        self._marked_at = -_MARK_EVERY

    def take(self, output: Mapping[str, Json]) -> None:
        """One output more. Raises OSError, NoRoom: nothing of what did not fit in is there."""
        if output["output_type"] != "stream":
            self._end_stream()
            self._write(_line(self._redacted(output)))
            return
        if output["name"] != self._name:
            self._end_stream()
            self._name = str(output["name"])
        self._text += self._flow.push(str(output["text"]))
        self._write_text(len(self._text) - len(self._text) % _PIECE)

    def so_far(self) -> Iterator[dict[str, Json]]:
        """What it holds by now, what waits for its line included. Raises OSError."""
        if self._path is not None:
            yield from read_outputs(self._path)
        if waits := self._text + self._redaction.personal(self._flow.line):
            yield {"output_type": "stream", "name": self._name, "text": waits}

    def clear(self) -> None:
        """What is there does not count. Raises OSError."""
        self._unmark()
        self._give_back()
        self._begin()
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)

    @property
    def pending(self) -> int:
        """Characters that wait for what comes after them."""
        return len(self._text) + self._flow.pending

    def end(self) -> Ended:
        """All of it, on the disk. Raises OSError, NoRoom."""
        self._end_stream()
        if self._descriptor >= 0 and self._sync:
            os.fsync(self._descriptor)
        return self.end_short()

    def end_short(self) -> Ended:
        """As it is, where the rest cannot be written."""
        self.close()
        self._unmark()
        name = "" if self._path is None else self._path.name
        tail = tuple({"output_type": "stream", "name": name, "text": text} for name, text in self._tail)
        return Ended(Spooled(name, self.size, self._digest.hexdigest(), self._lines, 0), tail)

    def close(self) -> None:
        """Leave it as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """It is not needed. Raises OSError."""
        self.close()
        self._unmark()
        self._give_back()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            if not any(self._path.parent.iterdir()):
                self._path.parent.rmdir()

    def _unmark(self) -> None:
        if self._path is not None:
            self._beside(".at").unlink(missing_ok=True)

    def _give_back(self) -> None:
        if self._room is not None and self._path is not None:
            self._room.give_back(self._path.parent.parent.name, self._path.parent.stem, self.size)

    def _redacted(self, output: Mapping[str, Json]) -> dict[str, Json]:
        kind = output["output_type"]
        shown = {**output, "output_type": "display_data"} if kind == "update_display_data" else output
        made = self._redaction.output(clean_output(shown, self._redaction.secret))
        transient = output.get("transient")
        if transient:
            made["transient"] = {"display_id": self._redaction.secret(clean_text(str(transient["display_id"])))}
        return made | {"output_type": kind}

    def _end_stream(self) -> None:
        self._text += self._flow.end()
        self._write_text(len(self._text))
        self._name = ""

    def _write_text(self, size: int) -> None:
        text, name = self._text, self._name
        for start in range(0, size, _PIECE):
            piece = text[start : min(start + _PIECE, size)]
            self._write(_line({"output_type": "stream", "name": name, "text": piece}))
            self._text = text[start + len(piece) :]
            self._note(name, piece)

    def _note(self, name: str, piece: str) -> None:
        if not self._tail or self._tail[-1][0] != name:
            self._tail.append([name, ""])
        self._tail[-1][1] = (self._tail[-1][1] + piece)[-_TAIL:]
        del self._tail[:-4]

    def _write(self, data: bytes) -> None:
        if self._path is not None and self._room is not None:
            self._room.take(self._path.parent.parent.name, self._path.parent.stem, len(data))
        if self._descriptor >= 0:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                os.ftruncate(self._descriptor, self.size)
                raise
        self._digest.update(data)
        self.size += len(data)
        self._lines += 1


def _line(output: Mapping[str, Json]) -> bytes:
    return orjson.dumps(output) + b"\n"


def _raw_lines(path: Path) -> Iterator[bytes]:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        yield from file


def read_outputs(path: Path) -> Iterator[dict[str, Json]]:
    """The outputs of a file. Raises OSError, ValueError."""
    return map(orjson.loads, _raw_lines(path))
