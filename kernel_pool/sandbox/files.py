"""The work folder, for whoever stands outside: listed, read and written in pieces, on the control channel.

What is asked is done by the kernel's own process, in its sandbox, with its rights: there is nothing here that a cell
could not do itself. A path is walked part by part below the folder and no link is followed, so that it names what it
says; only regular files are opened, and never one that could make the service thread wait. A file that is written gets
its name when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

#: Bytes of one piece, and entries of one listing.
PIECE = 1024 * 1024
ENTRIES = 1000

#: Names of what is not whole yet; listings leave them out.
_PART = ".omniops-part-"
#: What IPython makes for itself: left out, too.
_OWN = ".ipython"
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | _NO_LINK

_CODES = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ELOOP: "not_found",
    errno.EISDIR: "not_a_file",
    errno.ENXIO: "not_a_file",
    errno.ENOTEMPTY: "not_empty",
    errno.EEXIST: "not_a_folder",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.ENOMEM: "full",
    errno.ENAMETOOLONG: "bad_path",
    errno.EACCES: "refused",
    errno.EPERM: "refused",
    errno.EROFS: "refused",
}

Answer = tuple[dict[str, Any], list[bytes]]


class FilesError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Files:
    """Answers requests about one folder."""

    def __init__(self, folder: str) -> None:
        self._root = os.path.abspath(folder)
        self._does: Mapping[str, Callable[[Mapping[str, Any], bytes], Answer]] = {
            "list": self._list,
            "read": self._read,
            "write": self._write,
            "finish": self._finish,
            "drop": self._drop,
            "delete": self._delete,
        }

    def answer(self, asked: Mapping[str, Any], buffers: Sequence[bytes | memoryview]) -> Answer:
        """What a request comes to. Never raises."""
        try:
            return self._does[asked["do"]](asked, bytes(buffers[0]) if buffers else b"")
        except FilesError as error:
            return {"error": error.code}, []
        except OSError as error:
            return {"error": _CODES.get(error.errno or 0, "refused")}, []
        except MemoryError:
            return {"error": "full"}, []
        except Exception as error:  # noqa: BLE001 - the boundary to who asks: a request that fails must not end the kernel
            return {"error": "refused", "why": type(error).__name__[:100]}, []

    def _list(self, asked: Mapping[str, Any], data: bytes) -> Answer:
        """A folder's entries by name, those after `after`."""
        after, most = str(asked["after"]), min(int(asked["limit"]), ENTRIES)
        with self._folder(_parts(asked["path"], root=True)) as folder, os.scandir(folder) as entries:
            named = (entry.name for entry in entries)
            shown = (name for name in named if name > after and not name.startswith(_PART) and name != _OWN)
            found = heapq.nsmallest(most + 1, shown)
            told = [self._entry(folder, name) for name in found[:most]]
        return {"entries": [entry for entry in told if entry is not None], "more": len(found) > most}, []

    def _entry(self, folder: int, name: str) -> dict[str, Any] | None:
        try:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return {"name": name, **_about(about)}

    def _read(self, asked: Mapping[str, Any], data: bytes) -> Answer:
        """A piece of a file, and how the file is."""
        with self._file(asked["path"], os.O_RDONLY) as file:
            piece = os.pread(file, min(int(asked["size"]), PIECE), int(asked["offset"])) if asked["size"] else b""
            return _about(os.fstat(file)), [piece]

    def _write(self, asked: Mapping[str, Any], data: bytes) -> Answer:
        """A piece of a file that has no name yet; folders on its way are made."""
        *folders, name = _parts(asked["path"])
        begins = int(asked["offset"]) == 0
        with self._folder(folders, make=begins) as folder:
            self._check_place(folder, name)
            flags = os.O_WRONLY | _NO_LINK | (os.O_CREAT | os.O_EXCL if begins else 0)
            file = os.open(_part(asked), flags, 0o644, dir_fd=folder)
            try:
                at = int(asked["offset"])
                while data:
                    written = os.pwrite(file, data, at)
                    data, at = data[written:], at + written
            finally:
                os.close(file)
        return {}, []

    def _finish(self, asked: Mapping[str, Any], data: bytes) -> Answer:
        """Give a file that is whole its name, in place of one that has it."""
        *folders, name = _parts(asked["path"])
        with self._folder(folders) as folder:
            self._check_place(folder, name)
            os.rename(_part(asked), name, src_dir_fd=folder, dst_dir_fd=folder)
            return _about(os.stat(name, dir_fd=folder, follow_symlinks=False)), []

    def _drop(self, asked: Mapping[str, Any], data: bytes) -> Answer:
        """Remove a file that will not be whole."""
        *folders, _ = _parts(asked["path"])
        with self._folder(folders) as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(_part(asked), dir_fd=folder)
        return {}, []

    def _delete(self, asked: Mapping[str, Any], data: bytes) -> Answer:
        """Remove a file, a link, or a folder that is empty."""
        *folders, name = _parts(asked["path"])
        with self._folder(folders) as folder:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode):
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
        return {}, []

    def _check_place(self, folder: int, name: str) -> None:
        """What stands in a file's place may be replaced only where it is a file or a link."""
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not (stat.S_ISREG(about.st_mode) or stat.S_ISLNK(about.st_mode)):
                raise FilesError("not_a_file")

    @contextlib.contextmanager
    def _file(self, path: object, flags: int) -> Iterator[int]:
        *folders, name = _parts(path)
        with self._folder(folders) as folder:
            # a pipe that nobody writes to, or a device, would make the opening wait
            file = _open(name, flags | os.O_NONBLOCK | os.O_NOCTTY, folder)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise FilesError("not_a_file")
                yield file
            finally:
                os.close(file)

    @contextlib.contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """The folder of that path, opened; with `make` it is made where it is not there."""
        folder = os.open(self._root, _FOLDER)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=folder)
                inner = _open(part, _FOLDER, folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)


def files_handler(session: Any, folder: str) -> Callable[[Any, Any, dict[str, Any]], None]:
    """For a kernel's control channel: ours, beyond Jupyter's protocol."""
    files = Files(folder)

    def handle(stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        content, buffers = files.answer(parent["content"], parent.get("buffers") or ())
        session.send(stream, "files_reply", content, parent, ident=ident, buffers=buffers)

    return handle


def _parts(path: object, *, root: bool = False) -> list[str]:
    """The parts of a path below the folder; `root`: "" is the folder itself. Raises FilesError."""
    if root and path == "":
        return []
    parts = str(path).split("/")
    if any(part in ("", ".", "..") or "\0" in part or part.startswith(_PART) for part in parts):
        raise FilesError("bad_path")
    return parts


def _part(asked: Mapping[str, Any]) -> str:
    upload = str(asked["upload"])
    if not upload.isalnum() or len(upload) > 64:
        raise FilesError("bad_path")
    return _PART + upload


def _open(name: str, flags: int, folder: int) -> int:
    """Open what is there under that name, no link. gVisor follows one to `/` all the same: it is looked at again."""
    opened = os.open(name, flags | _NO_LINK, dir_fd=folder)
    try:
        named, found = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(opened)
        if (named.st_dev, named.st_ino) != (found.st_dev, found.st_ino):
            raise FilesError("not_found")
    except BaseException:
        os.close(opened)
        raise
    return opened


def _about(about: os.stat_result) -> dict[str, Any]:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))
    kind = next((name for test, name in kinds if test(about.st_mode)), "other")
    return {"kind": kind, "size": about.st_size, "modified_ns": about.st_mtime_ns, "inode": about.st_ino}
