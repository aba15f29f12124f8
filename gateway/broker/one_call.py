"""A call that passed all checks, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.types import CallRecord, CallState, Grant
from servers.tool import Tool

from .attempt import Parts, Value
from .cells import Cell, Session
from .errors import ErrorBody
from .journal import CallKey, Made, Row


@dataclass(frozen=True)
class Outcome:
    """What a call came to: `value`, or `error`. Of a result that `streamed` both are empty: its parts are gone."""

    record: CallRecord
    value: Value = field(default_factory=Value)
    error: ErrorBody | None = None
    streamed: bool = False


@dataclass(frozen=True)
class Call:
    """A call that passed all checks."""

    grant: Grant
    session: Session
    cell: Cell
    tool: Tool
    args: dict[str, Any]
    text: str
    key: CallKey
    #: The kernel's own id of it; "" without a kernel.
    request: str
    #: What this run of the cell has of it already: the call comes again.
    before: CallRecord | None
    #: Where the parts of a result that streams go.
    parts: Parts | None = None

    def record(self, state: CallState) -> CallRecord:
        return CallRecord(
            session=self.key.session,
            cell=self.key.cell,
            tool=self.key.tool,
            args=self.args,
            occurrence=self.key.occurrence,
            effect=self.tool.effect,
            state=state,
            replayed=False,
        )


def value_of(row: Row) -> Value:
    return Value(row.result, row.result_table, row.result_rows)


def settled(record: CallRecord, row: Row) -> CallRecord:
    """The record with what the journal knows of its outcome."""
    return msgspec.structs.replace(
        record,
        result=value_of(row).shown(),
        error=row.error,
        result_bytes=row.result_bytes,
        started=row.started,
        ended=row.ended,
    )


def record_of(made: Made) -> CallRecord:
    record = CallRecord(
        session=made.key.session,
        cell=made.key.cell,
        tool=made.key.tool,
        args=made.args,
        occurrence=made.key.occurrence,
        effect=made.effect,
        state=made.row.state,
        replayed=made.replayed,
    )
    return settled(record, made.row)
