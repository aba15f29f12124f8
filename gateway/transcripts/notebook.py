"""A session as a Jupyter notebook (nbformat 4.5): pure functions, nothing is read or written here.

Messages of the conversation are Markdown cells, cells are code cells with their outputs. `metadata.execution` has the
times under nbclient's names; what Jupyter does not know (tool calls, the text that the model saw, tokens) is in each
cell's `metadata.omniops`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import orjson

from gateway.transcripts.clean import clean_json, clean_output, clean_text, execution_count
from gateway.types import CallRecord, CellRun

#: One notebook, or one cell of it, as plain JSON.
Node = dict[str, Any]
Redact = Callable[[str], str]

#: Arguments of a call that are kept, bytes of JSON; the journal has them whole.
_ARGS_BYTES = 16_000
_ERROR_CHARS = 4_000
#: Result of a direct call that is kept, characters; the journal has it whole.
_RESULT_CHARS = 100_000
_EARLIER_RUNS = 20


class Header(msgspec.Struct, frozen=True):
    """What a transcript says about its session."""

    session: str
    tenant: str
    role: str
    created: datetime
    title: str = ""
    state: str = "live"


class Said(msgspec.Struct, frozen=True):
    """A message of the conversation, or a note of the gateway's on it."""

    id: str
    who: Literal["customer", "agent", "note"]
    text: str
    at: datetime
    #: Of an answer: tokens, cost, reason and seconds of its turn.
    usage: dict[str, Any] = {}


class DirectStep(msgspec.Struct, frozen=True):
    """Tool calls that the model made directly, without a cell."""

    id: str
    calls: tuple[CallRecord, ...]
    started: datetime
    ended: datetime


Entry = Said | CellRun | DirectStep


def notebook(header: Header, entries: Sequence[Entry], redact: Redact = str) -> Node:
    """The whole session. Of several runs of one cell the last one stands, the earlier ones in its metadata."""
    cells: dict[str, Node] = {}
    for entry in entries:
        key = cell_id(entry)
        cells[key] = render(entry, cells.get(key), redact)
    return assemble(header, list(cells.values()), redact)


def assemble(header: Header, cells: Sequence[Node], redact: Redact = str) -> Node:
    """A notebook of cells that are rendered already."""
    return {
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
            "omniops": {
                "session": header.session,
                "tenant": header.tenant,
                "role": header.role,
                "title": redact(clean_text(header.title)),
                "state": header.state,
                "created": iso(header.created),
            },
        },
        "cells": list(cells),
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def cell_id(entry: Entry) -> str:
    """The notebook's cell id of an entry."""
    return entry.cell if isinstance(entry, CellRun) else entry.id


def render(entry: Entry, earlier: Node | None = None, redact: Redact = str) -> Node:
    """One entry as a cell; `earlier` is the cell of its last run, if it has run before."""
    if isinstance(entry, Said):
        return _said(entry, redact)
    if isinstance(entry, DirectStep):
        return _direct(entry, redact)
    return _cell(entry, earlier, redact)


def _cell(run: CellRun, earlier: Node | None, redact: Redact) -> Node:
    result = run.result
    record: Node = {
        "index": run.index,
        "status": result.status,
        "reason": redact(clean_text(result.reason)),
        "state_lost": result.state_lost,
        "started": iso(result.started),
        "ms": _ms(result.started, result.ended),
        "calls": [_call(call, redact) for call in run.calls],
        "envelope": redact(clean_text(run.envelope)),
        "envelope_tokens": run.envelope_tokens,
        "output_bytes": result.output_bytes,
        "dropped_bytes": result.dropped_bytes,
    }
    if run.spool is not None:
        record["spool"] = msgspec.to_builtins(run.spool)
    if run.run:
        record["run"] = run.run
    if run.check is not None:
        record["check"] = clean_json(msgspec.to_builtins(run.check), redact)
    if earlier is not None:
        known = earlier["metadata"].get("omniops", {}).get("earlier_runs", ())
        if runs := earlier_runs(earlier, known, run.run):
            record["earlier_runs"] = runs
    return {
        "cell_type": "code",
        "id": run.cell,
        "source": redact(clean_text(run.code)),
        "execution_count": execution_count(result.execution_count),
        "metadata": {"execution": _execution(result.started, result.ended), "omniops": record},
        "outputs": [clean_output(output, redact) for output in result.outputs],
    }


def _direct(step: DirectStep, redact: Redact) -> Node:
    calls = [_call(call, redact) for call in step.calls]
    lines = [f"# {call['tool']}({_dump(call['args'])})" for call in calls]
    return {
        "cell_type": "code",
        "id": step.id,
        "source": "\n".join(["# called directly, without a kernel", *lines]),
        "execution_count": None,
        "metadata": {
            "execution": _execution(step.started, step.ended),
            "omniops": {
                "status": "direct",
                "started": iso(step.started),
                "ms": _ms(step.started, step.ended),
                "calls": calls,
            },
        },
        "outputs": [_answer(call, redact) for call in step.calls],
    }


def _answer(call: CallRecord, redact: Redact) -> Node:
    """What a direct call came to, as an output."""
    if call.error is None:
        return {
            "output_type": "stream",
            "name": "stdout",
            "text": _dump(clean_json(call.result, redact))[:_RESULT_CHARS],
        }
    text = redact(clean_text(f"{call.error.get('type')}: {call.error.get('message')}"))
    return {"output_type": "stream", "name": "stderr", "text": text[:_RESULT_CHARS]}


def _said(said: Said, redact: Redact) -> Node:
    record: Node = {"who": said.who, "at": iso(said.at)}
    if said.usage:
        record["usage"] = clean_json(said.usage, redact)
    heading = {"customer": "**Customer**", "agent": "**Agent**", "note": "**Note**"}[said.who]
    return {
        "cell_type": "markdown",
        "id": said.id,
        "source": f"{heading}\n\n{quoted(redact(clean_text(said.text)))}",
        "metadata": {"omniops": record},
    }


def quoted(text: str) -> str:
    """The text as a Markdown quotation that shows it as it is: no markup, link, image or formula of a stranger's."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*_{}\[\]()#+.!|~$-])", r"\\\1", escaped)
    escaped = re.sub(r"(?<=[A-Za-z]):(?=//)", r"&#58;", escaped)
    return "\n".join(f"> {line}  " for line in escaped.splitlines()) or "> "


def unquoted(source: str) -> str:
    """What `quoted` was given, out of the source of a message's cell."""
    body = source.partition("\n\n")[2]
    text = "\n".join(line.removeprefix("> ").removesuffix("  ") for line in body.split("\n"))
    text = re.sub(r"\\([\\`*_{}\[\]()#+.!|~$-])", r"\1", text).replace("&#58;", ":")
    return text.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")


def _call(call: CallRecord, redact: Redact) -> Node:
    record: Node = {
        "tool": call.tool,
        "args": _arguments(call, redact),
        "effect": call.effect,
        "state": call.state,
        "replayed": call.replayed,
        "ms": _ms(call.started, call.ended),
        "result_bytes": call.result_bytes,
    }
    if call.error is not None:
        record["error"] = {
            key: redact(clean_text(str(call.error.get(key, ""))))[:_ERROR_CHARS] for key in ("type", "message", "hint")
        }
    return record


def _arguments(call: CallRecord, redact: Redact) -> Any:
    cleaned = clean_json(call.args, redact)
    text = orjson.dumps(cleaned)
    if len(text) <= _ARGS_BYTES:
        return cleaned
    return {"truncated": text[:_ARGS_BYTES].decode(errors="replace"), "bytes": len(text)}


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()


def earlier_runs(cell: Node, before: Sequence[Node], run: str) -> list[Node]:
    """The earlier runs of a cell, `before` those of its last one, `cell`.

    `run`: the one that takes its place; it may be there already, from a gateway that was killed just then.
    """
    record = cell["metadata"].get("omniops", {})
    runs = list(before)
    if run and record.get("run") == run:
        return runs
    runs.append({key: record[key] for key in ("status", "reason", "started", "ms", "calls") if key in record})
    return runs[-_EARLIER_RUNS:]


def _execution(started: datetime, ended: datetime) -> dict[str, str]:
    return {
        "iopub.execute_input": iso(started),
        "shell.execute_reply": iso(ended),
        "iopub.status.idle": iso(ended),
    }


def iso(moment: datetime) -> str:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _ms(started: datetime | None, ended: datetime | None) -> float | None:
    return round((ended - started).total_seconds() * 1000, 1) if started and ended else None
