"""Where two transcripts differ: cell by cell, in code and in what came of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from gateway.transcripts.notebook import Node

_LINES = 200
_BEGINNING = 64 * 1024


class CellDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One cell that is not the same on both sides; its number among the cells, from 1."""

    number: int
    #: Its ids on either side; None where it is not there.
    before: str | None
    after: str | None
    #: What differs: "cell", "code", "status", "outputs".
    what: list[str]
    #: A unified diff of it, for people.
    lines: list[str]


def differences(before: Sequence[Node], after: Sequence[Node]) -> list[CellDifference]:
    """Of code cells, one after the other. Nothing is smoothed over but what `outputs_text` leaves out."""
    found = []
    for number in range(max(len(before), len(after))):
        old = before[number] if number < len(before) else None
        new = after[number] if number < len(after) else None
        what, lines = compare(old, new)
        if what:
            ids = (old["id"] if old else None, new["id"] if new else None)
            found.append(CellDifference(number=number + 1, before=ids[0], after=ids[1], what=what, lines=lines))
    return found


def compare(old: Node | None, new: Node | None) -> tuple[list[str], list[str]]:
    """What differs between two cells, and how."""
    if old is None or new is None:
        return ["cell"], ["- there is no such cell" if old is None else "+ there is no such cell"]
    parts = {
        "code": (str(old["source"]), str(new["source"])),
        "status": (status_of(old), status_of(new)),
        "outputs": (outputs_text(old), outputs_text(new)),
    }
    what = [name for name, (left, right) in parts.items() if left != right]
    lines = [line for name in what for line in _unified(name, *parts[name])]
    return what, lines if len(lines) <= _LINES else [*lines[:_LINES], f"[{len(lines) - _LINES} lines more]"]


def status_of(cell: Node) -> str:
    return str(cell["metadata"].get("omniops", {}).get("status", ""))


def outputs_text(cell: Node) -> str:
    """A cell's outputs as text that is the same whenever they are.

    Left out: execution counts, and where one stream was cut into several outputs, which is chance. Of a cell whose
    outputs are in a file, the beginning is given for people; the file's hash is what counts.
    """
    outputs, spool = cell.get("outputs", ()), cell["metadata"].get("omniops", {}).get("spool")
    if not spool:
        return _text_of(outputs)
    told = f"[{spool['outputs']} outputs, {spool['bytes']} bytes, SHA-256 {spool['sha256']}]"
    return f"{_text_of(outputs[: spool['head']])[:_BEGINNING]}\n{told}\n"


def _text_of(outputs: Sequence[Mapping[str, Any]]) -> str:
    parts: list[str] = []
    stream = ""
    for output in outputs:
        if output["output_type"] == "stream":
            if output["name"] != stream:
                parts.append(f"[{output['name']}]\n")
            stream = output["name"]
            parts.append(output["text"])
            continue
        stream = ""
        shown = {key: value for key, value in output.items() if key not in ("execution_count", "output_type")}
        text = orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        parts.append(f"\n[{output['output_type']}]\n{text}\n")
    return "".join(parts)


def code_cells(cells: Sequence[Node]) -> list[Node]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _unified(name: str, old: str, new: str) -> list[str]:
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"{name} before", f"{name} after", lineterm="", n=2
    )
    return list(lines)
