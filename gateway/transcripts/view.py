"""The notebook of a record: which of its lines stand, what they are found by, and the notebook's bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import orjson

from gateway.transcripts.notebook import Header, Node, assemble, earlier_runs
from gateway.transcripts.record import Head, Line, Place
from gateway.transcripts.redaction import Redaction

#: Kinds of lines that are cells of the notebook.
SHOWN = ("message", "cell", "step")


class Seen(msgspec.Struct):
    """What a session is found by: see `Fold`."""

    cells: int = 0
    messages: int = 0
    #: Tools that were called.
    tools: set[str] = set()
    #: Names of errors, of cells and of tools; and how cells ended that did not end by themselves: "dead".
    errors: set[str] = set()
    #: What the model cost, US dollars.
    dollars: float = 0.0


@dataclass(frozen=True)
class Standing:
    """The last line of a cell, and what became of its earlier runs."""

    place: Place
    earlier: tuple[Node, ...] = ()
    #: A tombstone: when the content was written.
    erased: str = ""


@dataclass
class Fold:
    """A record read from its first line on. `read`: the node at a place."""

    read: Callable[[Place], Node]
    header: Header
    cells: dict[str, Standing] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    def take(self, line: Line, place: Place) -> str | None:
        """The id of the cell that is another now."""
        if line.erased:
            if line.kind not in SHOWN:
                return None
            id = f"erased-{line.seq}"
            self.cells[id] = Standing(place, erased=line.at)
            return id
        content = orjson.loads(bytes(line.content))
        if line.kind in SHOWN:
            return self._cell(content, place)
        if line.kind in ("session", "state", "erasure"):
            self._header(content)
        return None

    def _header(self, content: Mapping[str, Any]) -> None:
        known = {name: content[name] for name in ("role", "title", "state") if name in content}
        if "created" in content:
            known["created"] = datetime.fromisoformat(content["created"])
        self.header = msgspec.structs.replace(self.header, **known)

    def _cell(self, node: Node, place: Place) -> str:
        id: str = node["id"]
        code = node["cell_type"] == "code"
        before = self.cells.get(id)
        earlier: tuple[Node, ...] = ()
        if before is None:
            self.seen.cells += code
            self.seen.messages += not code
        elif code:
            run = node["metadata"]["omniops"].get("run", "")
            earlier = tuple(earlier_runs(self.read(before.place), before.earlier, run))
        self.cells[id] = Standing(place, earlier)
        _note(self.seen, node, new=before is None)
        return id


def _note(seen: Seen, node: Node, *, new: bool) -> None:
    record = node["metadata"].get("omniops", {})
    for call in record.get("calls", ()):
        seen.tools.add(call["tool"])
        if call.get("error"):
            seen.errors.add(call["error"]["type"])
    for output in node.get("outputs", ()):
        if output["output_type"] == "error":
            seen.errors.add(output["ename"])
    if record.get("status") in ("interrupted", "dead"):
        seen.errors.add(record["status"])
    usage = record.get("usage", {}).get("usage", {})
    if new and isinstance(usage, dict) and isinstance(dollars := usage.get("dollars"), int | float):
        seen.dollars += dollars


def node_of(fold: Fold, standing: Standing, id: str) -> Node:
    """A cell as it stands, with its earlier runs. Raises TranscriptError."""
    if standing.erased:
        text = f"*What stood here, written at {standing.erased}, was erased.*"
        return {"cell_type": "markdown", "id": id, "source": text, "metadata": {"omniops": {"who": "erased"}}}
    node = fold.read(standing.place)
    if standing.earlier:
        node["metadata"]["omniops"]["earlier_runs"] = list(standing.earlier)
    return node


def cell_bytes(fold: Fold, standing: Standing, id: str, redaction: Redaction) -> bytes:
    """A cell as it stands in the notebook. Raises TranscriptError."""
    return dump(redaction.cell(node_of(fold, standing, id)))


def notebook_bytes(fold: Fold, head: Head, redaction: Redaction, cells: Iterable[bytes] | None = None) -> bytes:
    """The whole notebook. `cells`: where they are made already. Raises TranscriptError."""
    if cells is None:
        cells = (cell_bytes(fold, standing, id, redaction) for id, standing in fold.cells.items())
    frame = assemble(fold.header, [], redaction.personal)
    counts = {"cells": fold.seen.cells, "messages": fold.seen.messages}
    about = {"record": {"seq": head.seq, "hash": head.hash}, "masked": list(redaction.kinds)}
    frame["metadata"]["omniops"] |= counts | about
    body = b'{"metadata":' + dump(frame["metadata"]) + b',"nbformat":4,"nbformat_minor":5,"cells":['
    return body + b",\n".join(cells) + b"]}\n"


def dump(node: object) -> bytes:
    return orjson.dumps(node, option=orjson.OPT_INDENT_2)
