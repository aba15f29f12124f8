"""Writes before the gate: what the gate is told of a call, and calls that a person is asked about together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from gateway.approvals.gate import Gate
from gateway.approvals.types import Asking, Refusal
from gateway.types import Grant
from servers.context import SessionPins
from servers.errors import ApprovalRequired
from servers.preview import Preview
from servers.tool import Tool

from .cells import Cell, Session
from .contexts import ContextFactory
from .journal import CallKey, Row


class Checked(Protocol):
    """A call that passed all checks."""

    @property
    def grant(self) -> Grant: ...
    @property
    def session(self) -> Session: ...
    @property
    def cell(self) -> Cell: ...
    @property
    def tool(self) -> Tool: ...
    @property
    def args(self) -> dict[str, Any]: ...
    @property
    def key(self) -> CallKey: ...


class Admission:
    """Asks the gate. `gate`: None where there is nobody to ask; what is critical is refused then."""

    def __init__(
        self,
        gate: Gate | None,
        contexts: ContextFactory,
        pins: Callable[[Session, Grant], Awaitable[SessionPins]],
    ) -> None:
        self._gate = gate
        self._contexts = contexts
        self._pins = pins
        #: Calls that one batch may have.
        self.most = gate.batch_calls if gate is not None else 0

    async def unasked(self, call: Checked) -> bool:
        """The write may go out if it is new: nobody has to be asked, and nothing to be looked at."""
        if call.cell.approved:
            return True
        if self._gate is None:
            return call.tool.effect != "critical"
        return await self._gate.unasked(call.grant, call.tool, call.args)

    async def one(self, call: Checked, row: Row) -> Refusal | None:
        """None as soon as the write may go out."""
        if call.cell.approved:
            return None
        if self._gate is None:
            needed = f"{call.tool.name} needs a person's approval, and this gateway has nobody to ask."
            return Refusal(ApprovalRequired(needed), "failed") if call.tool.effect == "critical" else None
        return await self._gate.admit(self._asking(call, row))

    async def together(self, calls: Sequence[tuple[Checked, Row]], title: str) -> Refusal | None:
        """None: all of them are decided, each by itself. Raises ToolError: one cannot be made, and nobody is asked."""
        askings = [self._asking(call, row) for call, row in calls if not row.settled]
        return await self._gate.admit_batch(askings, title) if self._gate is not None and askings else None

    def park(self, session: str, cell: str) -> None:
        """The cell is over."""
        if self._gate is not None:
            self._gate.park(session, cell)

    def close(self) -> None:
        """Nothing is held any more."""
        if self._gate is not None:
            self._gate.close()

    def _asking(self, call: Checked, row: Row) -> Asking:
        async def preview() -> Preview | None:
            if call.tool.preview is None:
                return None
            pins, key = await self._pins(call.session, call.grant), call.key.idempotency_key
            context = await self._contexts.context(call.grant, pins, call.tool, idempotency_key=key, resuming=False)
            return await call.tool.preview(context, **call.args)

        return Asking(
            call=row.id,
            fresh=row.fresh,
            state=row.state,
            grant=call.grant,
            cell=call.cell.id,
            tool=call.tool,
            args=call.args,
            args_hash=call.key.args_hash,
            replay=call.cell.replay,
            ends=call.cell.ends,
            preview=preview,
        )
