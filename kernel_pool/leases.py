"""What a place writes down of each kernel, for the gateway after this one: `leases/<id>.json` in the place's folder.

The folder is the gateway's alone; kernels do not see it. A file comes to be when its kernel is ready and goes when
the kernel is cleared away.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)


class Lease(msgspec.Struct, frozen=True):
    """One kernel."""

    id: str
    #: Hexadecimal; signs the kernel's messages.
    key: str
    uid: int | None
    #: Bytes of memory that do not count.
    baseline: int
    #: What the pool put down; "" for a kernel that was never leased.
    note: str = ""


@dataclass
class Record:
    """The file of one kernel."""

    path: Path
    lease: Lease

    def write(self) -> None:
        """Blocks for one write. Raises OSError, and leaves the file as it was then."""
        # strings and descriptors: fifty leases at once wait for fifty of these
        path = os.fspath(self.path)
        fresh = f"{path.removesuffix('.json')}.new"
        content = msgspec.json.encode(self.lease)
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)
            os.replace(fresh, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise

    def note(self, text: str) -> None:
        """Write down who leased the kernel. Raises OSError."""
        before = self.lease
        self.lease = msgspec.structs.replace(before, note=text)
        try:
            self.write()
        except OSError:
            self.lease = before
            raise


class Leases:
    """The folder with the files. All methods block briefly."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder; what is in it stays."""
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def add(self, lease: Lease) -> Record:
        """Write down a new kernel. Raises OSError."""
        record = Record(self._folder / f"{lease.id}.json", lease)
        record.write()
        return record

    def found(self) -> list[Record]:
        """All that is written down; a file that cannot be read is removed."""
        records = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                records.append(Record(path, msgspec.json.decode(path.read_bytes(), type=Lease)))
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                _log.warning("the lease %s cannot be read and is removed: %s", path, error)
                path.unlink(missing_ok=True)
        for path in self._folder.glob("*.new"):
            path.unlink(missing_ok=True)
        return records

    def remove(self, kernel: str) -> None:
        (self._folder / f"{kernel}.json").unlink(missing_ok=True)
