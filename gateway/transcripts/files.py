"""Files that are there whole or not at all, and notebooks read from them."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from gateway.transcripts.errors import TranscriptError
from gateway.transcripts.notebook import Node


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file by a complete one, for this user alone; with `sync`, on the disk. Blocking; raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    beside.rename(path)
    if not sync:
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_notebook(path: Path) -> Node:
    """A notebook as it stands on disk. Raises TranscriptError."""
    try:
        return parse_notebook(path.read_bytes(), path)
    except FileNotFoundError:
        raise TranscriptError(f"There is no transcript {path}.") from None
    except OSError as error:
        raise TranscriptError(f"The transcript {path} cannot be read: {error}.") from error


def parse_notebook(content: bytes, path: Path) -> Node:
    """Raises TranscriptError."""
    try:
        node = orjson.loads(content)
    except ValueError as error:
        raise TranscriptError(f"The transcript {path} cannot be read: {error}.") from error
    if not isinstance(node, dict) or not isinstance(node.get("cells"), list):
        raise TranscriptError(f"{path} is no notebook.")
    return node
