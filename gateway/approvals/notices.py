"""What a conversation's model is told of approvals, before the customer's next message."""

from __future__ import annotations

import asyncio

from .rows import ApprovalRows
from .types import Approval, describe

_OUTCOME = 4000


class Notices:
    """The outcomes that a conversation has not heard of."""

    def __init__(self, rows: ApprovalRows) -> None:
        self._rows = rows

    async def take(self, session: str) -> str:
        """A notice, "" for nothing new. What has come to its end is told once; what waits, each time."""
        approvals = await self._rows.untold(session)
        if not approvals:
            return ""
        over = [each.id for each in approvals if _is_over(each)]
        if over:
            await asyncio.shield(self._rows.tell(over))
        told = "\n".join(_line(each) for each in approvals)
        return f"[automatic notice, not from the customer]\n{told}"


def _is_over(approval: Approval) -> bool:
    return approval.state in ("expired", "withdrawn") or approval.resumed is not None


def _line(approval: Approval) -> str:
    what = f"Approval {approval.id} ({approval.summary})"
    note = f" They said: {approval.note}" if approval.note and approval.decided_by else ""
    match approval.state:
        case "pending":
            return f"{what} still waits for a colleague. Do not make the call again."
        case "expired" | "withdrawn":
            return f"{what} is {approval.state}: nothing was changed. {approval.note}".rstrip()
    refused = sum(call.approved is False for call in approval.calls)
    how = "was approved" if not refused else "was refused"
    if refused and approval.state == "approved":
        how = f"was approved in part: {len(approval.calls) - refused} of {len(approval.calls)} calls"
    if approval.resumed is None:
        return f"{what} {how}; what it lets out is being done now. Do not make the call again.{note}"
    calls = "\n".join(f"- {describe(call.view)}: {call.state}" for call in approval.calls)
    came = f"\nThe cell was run again and gave:\n{approval.outcome[:_OUTCOME]}" if approval.outcome else ""
    return f"{what} {how} by a colleague.{note}\n{calls}{came}"
