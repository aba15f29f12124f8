"""Calls that a cell makes together, for a person to see them as one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.approvals.types import BATCH
from servers.errors import ToolInputError
from servers.tool import Tool

from .attempt import Value
from .canonical import encode_result
from .errors import ErrorBody


class BatchCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tool: str
    args: dict[str, Any]


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the kernel sends at the end of a `with approvals.batch(...)`."""

    title: str
    calls: tuple[BatchCall, ...]

    def check(self, tools: Iterable[Tool]) -> None:
        """Raises ToolInputError: there is nothing to ask about one of them."""
        for tool in tools:
            if tool.effect == "read":
                raise ToolInputError(f"{tool.name} only reads: call it outside of the batch.", tool=BATCH)

    @staticmethod
    def answer(outcomes: Iterable[tuple[Value, ErrorBody | None]]) -> str:
        """The outcomes (result or error) as one JSON list; of a table its rows."""
        entries = (
            f'{{"value":{value.text or encode_result(BATCH, value.plain())}}}'
            if error is None
            else f'{{"error":{json.dumps(error)}}}'
            for value, error in outcomes
        )
        return f"[{','.join(entries)}]"


def parse_batch(args: Mapping[str, Any], most: int) -> Batch:
    """Raises ToolInputError."""
    try:
        batch = msgspec.convert(args, Batch)
    except msgspec.ValidationError as error:
        raise ToolInputError(f"A batch has a title and calls: {error}.", tool=BATCH) from None
    if not 0 < len(batch.calls) <= most:
        raise ToolInputError(f"A batch has 1 to {most} calls, not {len(batch.calls)}.", tool=BATCH)
    return batch
