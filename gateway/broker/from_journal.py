"""A broker that answers from the journal alone: nothing goes out, nothing is entered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.approvals.types import BATCH
from gateway.settings import BrokerSettings
from gateway.tool_catalogue import Catalogue
from gateway.types import CallRecord, Grant
from servers.errors import ToolDenied, ToolError

from .attempt import Parts, Value
from .canonical import MAX_NAME, canonical, check_names
from .cells import Cell
from .errors import ErrorBody, to_body
from .flights import Heard, told
from .journal import Journal
from .one_call import Outcome
from .policy import CellBudget, check_allowed
from .scrub import Scrubber
from .spent import Spent


class FromJournal:
    """The calls of one session, as its cells made them: by cell, tool, arguments and occurrence."""

    def __init__(self, catalogue: Catalogue, journal: Journal, settings: BrokerSettings, scrubber: Scrubber) -> None:
        self._catalogue = catalogue
        self._journal = journal
        self._settings = settings
        self._scrubber = scrubber
        self._cell: Cell | None = None
        self._under_way: set[asyncio.Task[Outcome]] = set()

    def begin(self, cell: str) -> None:
        """Calls are this cell's from now on."""
        self._cell = Cell(cell, CellBudget(self._settings, Spent()))

    def end(self) -> tuple[CallRecord, ...]:
        """Calls are refused from now on; those that were made, in order."""
        cell, self._cell = self._cell, None
        return () if cell is None else cell.records

    @property
    def error_body(self) -> Callable[[Exception, str], ErrorBody]:
        return self._error_body

    async def call(
        self,
        grant: Grant,
        name: str,
        args: dict[str, Any],
        *,
        size: int = 0,
        request: str = "",
        parts: Parts | None = None,
    ) -> Outcome:
        """What the call came to when the session made it.

        Raises:
            ToolError: it would have been refused then, too; ToolDenied: it is not in the journal.
        """
        cell = self._cell
        if cell is None:
            raise ToolDenied("No cell is being replayed, so no tool may be called.", tool=name[:MAX_NAME])
        cell.budget.take_call()
        try:
            return await self._answer(cell, grant, name, args, request)
        except ToolError as error:
            cell.note_refused(grant.session, name[:MAX_NAME], args, to_body(error, name[:MAX_NAME], self._scrubber))
            raise

    def hear(
        self,
        grant: Grant,
        name: str,
        args: dict[str, Any],
        heard: Heard,
        *,
        size: int,
        request: str,
        parts: Parts | None,
    ) -> Callable[[], object]:
        """`call`; `heard` is told what it came to. Returns what gives it up."""
        return told(self.call(grant, name, args, request=request), heard, self._under_way)

    async def _answer(self, cell: Cell, grant: Grant, name: str, args: dict[str, Any], request: str) -> Outcome:
        if name == BATCH:
            raise ToolDenied("A batch of writes cannot be replayed.", tool=name)
        check_names(args)
        tool, checked = self._catalogue.of(grant).resolve(name[: 2 * MAX_NAME], args)
        check_allowed(grant, tool)
        _, digest = canonical(checked)
        key = cell.key(grant.session, tool.qualified_name, digest, request)
        found = await self._journal.answer(key)
        if found is None:
            raise ToolDenied(
                f"{tool.name}: this call is not in the journal, and a replay makes none.",
                tool=name,
                hint="The cell did not make it, or not with these arguments, when the session ran.",
            )
        if found["state"] not in ("applied", "failed", "denied", "reverted"):
            raise ToolDenied(f"{tool.name}: the journal does not know what came of this call.", tool=name)
        if found["batches"]:
            raise ToolDenied(f"{tool.name}: its result streamed, and the journal does not keep those.", tool=name)
        value = Value(found["result"], found["result_table"], found["result_rows"])
        record = CallRecord(
            session=key.session,
            cell=key.cell,
            tool=key.tool,
            args=checked,
            occurrence=key.occurrence,
            effect=found["effect"],
            state=found["state"],
            replayed=True,
            error=found["error"],
            result_bytes=found["result_bytes"],
        )
        cell.note(key, record)
        return Outcome(record, value, found["error"])

    def _error_body(self, error: Exception, tool: str) -> ErrorBody:
        if isinstance(error, ToolError):
            return to_body(error, tool, self._scrubber)
        return to_body(ToolDenied(f"The replay of this call failed: {type(error).__name__}."), tool, self._scrubber)
