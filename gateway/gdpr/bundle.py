"""The file that a person is given: a zip with a manifest, written as it comes. Blocking; memory: a batch."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import orjson

#: Bytes that are gathered before they are packed, and between two looks at how it goes.
BATCH = 1024 * 1024
_MANIFEST = "manifest.json"
_FAST = 1


class TooLarge(Exception):
    """The file would be larger than it may. The message says what to do."""


@dataclass
class Part:
    """One file in the bundle, written once."""

    name: str
    about: str
    rows: int = 0
    size: int = 0
    #: Since it was asked last.
    fresh: int = 0
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)
    _file: IO[bytes] | None = field(default=None, repr=False)
    _waiting: bytearray = field(default_factory=bytearray, repr=False)

    def line(self, line: bytes) -> None:
        """Add a row, without its end."""
        self.rows += 1
        self.add(line)
        self.add(b"\n")

    def add(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        assert self._file is not None
        self._file.write(self._waiting)
        self._digest.update(self._waiting)
        self.size += len(self._waiting)
        self.fresh += len(self._waiting)
        self._waiting = bytearray()

    @property
    def due(self) -> bool:
        """True once for every batch."""
        if self.fresh < BATCH:
            return False
        self.fresh = 0
        return True

    def told(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "about": self.about,
            "rows": self.rows,
            "bytes": self.size,
            "sha256": self._digest.hexdigest(),
        }


class Bundle:
    """A file in the making, beside its place; `finish` puts it there. Left without that, nothing is left of it."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        """Raises OSError."""
        self.path = path
        self._most = most_bytes
        self._beside = partial_of(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = open(os.open(self._beside, flags, 0o600), "wb")  # noqa: SIM115 - closed by `close`
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=_FAST)
        self.files: list[dict[str, Any]] = []
        #: What was looked at, and was not.
        self.notes: dict[str, Any] = {}
        self.rows = self.bytes = 0

    @contextmanager
    def part(self, name: str, about: str) -> Iterator[Part]:
        """The next file; one at a time. Raises TooLarge, OSError."""
        with self._zip.open(name, "w", force_zip64=True) as file:
            part = Part(name, about, _file=file)
            yield part
            part.flush()
        self.files.append(part.told())
        self.rows += part.rows
        self.bytes += part.size

    def check(self) -> None:
        """Raises TooLarge."""
        if self._file.tell() > self._most:
            raise TooLarge(
                f"The file takes more than {self._most >> 20:,} MiB (gdpr.largest_mb). Raise it, and ask again."
            )

    def finish(self, about: dict[str, Any]) -> tuple[int, str]:
        """With its manifest, on the disk, in its place; its size and SHA-256. Raises OSError."""
        manifest = about | {"files": self.files} | self.notes
        self._zip.writestr(_MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with open(self._beside, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = self._beside.stat().st_size
        self._beside.rename(self.path)
        return size, digest

    def close(self) -> None:
        """Let go; remove what is unfinished. Safe to call again."""
        if not self._file.closed:
            with suppress(OSError, ValueError):  # a full disk; a part that was left open
                self._zip.close()
            self._file.close()
        self._beside.unlink(missing_ok=True)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def partial_of(path: Path) -> Path:
    """Where it is until it is whole."""
    return path.with_name(f".{path.name}.partial")
