"""The tools as a folder of `.pyi` files, for whoever would rather list and read than ask.

It is written when it is asked for, by the kernel itself and with what its session may call: nothing of it lies in the
sandbox beforehand, for a sandbox's files are the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .lookup import Lookup, NoBroker, NotFound
from .tool_index import Index

#: Bytes of all stubs, and how many servers are written; further ones are named in README.txt.
MAX_BYTES = 4 * 1024 * 1024
MAX_SERVERS = 100


def write_folder(lookup: Lookup, index: Index, servers: Sequence[str], into: Path = Path("servers")) -> Path:
    """One read-only `<server>.pyi` each, and a README.txt that lists all servers; files of before are replaced."""
    into.mkdir(exist_ok=True)
    lines, left_out, size = [], [], 0
    for name, doc in _lines(lookup, index):
        lines.append(f"{name}: {doc}")
        if servers and name not in servers:
            continue
        text = _stub(lookup, index, name) if len(lines) <= MAX_SERVERS or servers else ""
        size += len(text)
        if not text or size > MAX_BYTES:
            left_out.append(name)
            continue
        _write(into / f"{name}.pyi", text)
    if left_out:
        lines += ["", f"Too many to be written: {', '.join(left_out[:MAX_SERVERS])}."]
        lines += ['Name those that you want: servers.folder("...").']
    _write(into / "README.txt", "\n".join(lines) + "\n")
    return into.resolve()


def _lines(lookup: Lookup, index: Index) -> Iterator[tuple[str, str]]:
    """Name and description of each server."""
    after = ""
    try:
        while page := lookup.servers(after).servers:
            yield from ((line.name, line.doc) for line in page)
            after = page[-1].name
    except (NoBroker, NotFound):
        if not after:
            yield from ((server.name, server.doc.partition("\n")[0]) for server in index.servers)


def _stub(lookup: Lookup, index: Index, name: str) -> str:
    try:
        return lookup.pyi(name)
    except NotFound:
        return ""
    except NoBroker:
        server = index.by_name.get(name)
        return server.pyi if server else ""


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o444)
