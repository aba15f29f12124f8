"""Writes that were applied, and taking them back: by a person, through the journal, once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
import structlog

from gateway.db import Database
from gateway.types import CallState, Grant
from servers.errors import ToolError
from servers.preview import Done, Undo
from servers.tool import Effect, Tool

from .desk import ApprovalError, NotYours, Person
from .view import shown

log = structlog.get_logger(__name__)

#: A revert whose gateway died can be tried again after this time, seconds. Longer than any call takes.
_LEASE_S = 300

_WRITES = """
SELECT call.id AS call, call.tenant, call.session, call.cell, call.tool, call.args, call.effect, call.state,
       call.approval, call.started, call.ended, call.reverted, call.reverted_by, call.result, session.role,
       (SELECT view -> 'before' FROM approval_call WHERE approval_call.call = call.id
        ORDER BY approval_call.approval DESC LIMIT 1) AS before
FROM call JOIN session ON session.id = call.session
WHERE call.effect <> 'read'
"""

_CLAIM = """
UPDATE call SET reverting_until = now() + make_interval(secs => %s)
WHERE id = %s AND state = 'applied' AND (reverting_until IS NULL OR reverting_until < now())
"""

#: Attempts that came to nothing: each new one is a call of its own.
_FAILED = "SELECT count(*)::int AS n FROM call WHERE session = %s AND cell LIKE %s AND state IN ('failed', 'decided')"


class CannotRevert(ApprovalError):
    status, code = 409, "cannot_revert"


class CallNotFound(ApprovalError):
    status, code = 404, "call_not_found"


class WriteCall(msgspec.Struct, frozen=True, kw_only=True):
    """A write of the journal, as people see it."""

    call: int
    tenant: str
    session: str
    cell: str
    tool: str
    args: dict[str, str]
    effect: Effect
    state: CallState
    approval: str | None
    started: datetime
    ended: datetime | None
    reverted: datetime | None
    reverted_by: str | None
    #: What takes it back, in words; "" for nothing.
    revert: str
    #: `revert` can do it.
    can_revert: bool


#: The tool of a name for a tenant, if there is one.
FindTool = Callable[[str, str], Tool | None]
#: Makes a call that a person has asked for, journaled under a pseudo-cell. Raises ToolError.
ByPerson = Callable[[Grant, str, dict[str, Any], str], Awaitable[object]]


class Reverts:
    """Lists writes, and takes them back."""

    def __init__(self, database: Database, tool: FindTool, by_person: ByPerson) -> None:
        self._database = database
        self._tool = tool
        self._by_person = by_person

    async def find(
        self, person: Person, *, tenant: str | None = None, session: str | None = None, limit: int = 100
    ) -> tuple[WriteCall, ...]:
        """Writes that the person reaches, the newest first."""
        rows = await self._database.fetch(
            f"{_WRITES} AND (%(tenants)s::text[] IS NULL OR call.tenant = ANY(%(tenants)s))"
            " AND (%(tenant)s::text IS NULL OR call.tenant = %(tenant)s)"
            " AND (%(session)s::text IS NULL OR call.session = %(session)s)"
            " AND (NOT %(narrow)s OR session.role <> 'operator') ORDER BY call.id DESC LIMIT %(limit)s",
            {
                "tenants": None if person.tenants is None else list(person.tenants),
                "tenant": tenant,
                "session": session,
                "narrow": person.narrow,
                "limit": limit,
            },
        )
        return tuple(self._write(row) for row in rows)

    async def revert(self, person: Person, call: int) -> WriteCall:
        """Take back what a call did. Two at once, here or at another gateway: one does it.

        Raises:
            ApprovalError: it cannot be taken back, or not by this person; nothing has happened.
            ToolError: the tool that takes it back refused or failed.
        """
        row = await self._row(person, call)
        if not person.decides:
            raise NotYours("This token decides about no call.", "See `approvals.approvers` in the configuration.")
        if row["state"] == "reverted":
            raise CannotRevert(f"{row['reverted_by']} has reverted call {call} already; nothing more happens.")
        undo = self._undo(row)
        if row["state"] != "applied" or undo is None:
            raise CannotRevert(f"Call {call} of {row['tool']} cannot be reverted: {self._why_not(row)}")
        if not await self._database.execute(_CLAIM, (_LEASE_S, call)):
            raise CannotRevert(f"Call {call} is being reverted at this moment.", "Look again: omniops calls list")
        grant = Grant(tenant=row["tenant"], principal=person.name, session=row["session"], role="operator")
        failed = await self._database.fetch_one(_FAILED, (row["session"], f"revert-{call}-%"))
        cell = f"revert-{call}-{failed['n'] if failed else 0}"
        try:
            await self._by_person(grant, f"{row['tool'].partition('.')[0]}.{undo.tool}", dict(undo.args), cell)
        except ToolError:
            await self._database.execute("UPDATE call SET reverting_until = NULL WHERE id = %s", (call,))
            raise
        await self._database.execute(
            "UPDATE call SET state = 'reverted', reverted = now(), reverted_by = %s, reverting_until = NULL"
            " WHERE id = %s AND state = 'applied'",
            (person.name, call),
        )
        log.info("a call was reverted", call=call, who=person.name, tool=row["tool"])
        return self._write(await self._row(person, call))

    async def _row(self, person: Person, call: int) -> dict[str, Any]:
        """Raises CallNotFound, also for one that the person does not reach."""
        row = await self._database.fetch_one(f"{_WRITES} AND call.id = %s", (call,))
        reached = row is not None and (person.tenants is None or row["tenant"] in person.tenants)
        if row is None or not reached or (person.narrow and row["role"] == "operator"):
            raise CallNotFound(f"There is no write {call}.", "`omniops calls list` shows them.")
        return row

    def _undo(self, row: dict[str, Any]) -> Undo | None:
        tool = self._tool(row["tenant"], row["tool"])
        if tool is None or tool.undo is None or row["result"] is None:
            return None
        return tool.undo(Done(row["args"], msgspec.json.decode(row["result"]), row["before"] or {}))

    def _why_not(self, row: dict[str, Any]) -> str:
        if row["state"] != "applied":
            return f"it is {row['state']}."
        tool = self._tool(row["tenant"], row["tool"])
        words = tool.revert if tool is not None else ""
        return f"do it by hand ({words})." if words else "nothing takes it back."

    def _write(self, row: dict[str, Any]) -> WriteCall:
        tool = self._tool(row["tenant"], row["tool"])
        fields = {name: row[name] for name in WriteCall.__struct_fields__ if name in row}
        fields |= {
            "args": {shown(name): shown(value if isinstance(value, str) else msgspec.json.encode(value).decode())
                     for name, value in row["args"].items()},
            "revert": tool.revert if tool is not None else "",
            "can_revert": row["state"] == "applied" and self._undo(row) is not None,
        }  # fmt: skip
        return WriteCall(**fields)
