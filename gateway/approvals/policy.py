"""Which calls run by themselves, and which ones a person is asked about first."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from gateway.settings import ApprovalSettings, Settings, WriteCaps
from gateway.types import Grant
from servers.tool import Tool


@dataclass(frozen=True)
class Run:
    """The call goes out."""


@dataclass(frozen=True)
class Ask:
    """A person decides."""

    reason: str


@dataclass(frozen=True)
class Recent:
    """Writes of the last hour, this one not counted."""

    session: int = 0
    tenant: int = 0


def decide(
    grant: Grant, tool: Tool, caps: WriteCaps, *, recent: Recent = Recent(), amount: Decimal | str | None = None
) -> Run | Ask:
    """Reads run, writes run within `caps`, what is critical asks.

    `amount`: the money that moves; None where none does; a text that is no number counts as too much.
    """
    if tool.effect == "read":
        return Run()
    if tool.effect == "critical":
        return Ask("it is critical")
    if caps.irreversible == "ask" and not tool.revert:
        return Ask("nothing undoes it")
    if caps.amount is not None and amount is not None:
        money = _money(amount)
        if money is None:
            return Ask(f"how much money it moves is not known, and more than {caps.amount} needs a person")
        if money > caps.amount:
            return Ask(f"it moves {money}; by itself a session of role {grant.role} moves at most {caps.amount}")
    if recent.session >= caps.per_session_hour:
        return Ask(f"the session has made {recent.session} writes within an hour; {caps.per_session_hour} run unasked")
    if recent.tenant >= caps.per_tenant_hour:
        return Ask(
            f"{grant.tenant}'s sessions of role {grant.role} have made {recent.tenant} writes within an hour; "
            f"{caps.per_tenant_hour} run unasked"
        )
    return Run()


def caps_of(settings: Settings, grant: Grant) -> WriteCaps:
    """The caps of a session's writes: its role's, else its tenant's, else everybody's."""
    tenant = settings.tenants.get(grant.tenant)
    return settings.approvals.roles.get(grant.role) or (tenant and tenant.writes) or settings.approvals.writes


def hold_of(settings: ApprovalSettings, grant: Grant) -> float:
    """How long a call of the session may wait for a person, seconds."""
    return settings.hold_chat_s if grant.role == "agent" else settings.hold_s


def _money(amount: Decimal | str) -> Decimal | None:
    try:
        money = Decimal(amount)
    except InvalidOperation:
        return None
    return abs(money) if money.is_finite() else None
