"""Settings of approvals: who decides, how long a call waits, what runs without asking."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field, SecretStr

from .settings_group import Group


class WriteCaps(Group):
    """Writes within these run by themselves; past one of them a person is asked."""

    amount: Decimal | None = Field(
        None, ge=0, description="Money that one write may move, in the shop's currency. None: as much as the tool lets."
    )
    per_session_hour: int = Field(100, ge=0, description="Writes of one session in an hour. 0: each is asked.")
    per_tenant_hour: int = Field(1000, ge=0, description="Writes of all sessions of the tenant and role in an hour.")
    irreversible: Literal["run", "ask"] = Field("run", description="Writes that nothing undoes: run, or ask.")


class ApproverSettings(Group):
    token: SecretStr = Field(description="Access token of this person; it is for approvals alone.")
    tenants: tuple[str, ...] = Field((), description="Tenants whose calls the person decides about. Empty: all.")


class ApprovalSettings(Group):
    hold_s: float = Field(120.0, ge=0, description="How long a call waits for a person before its cell is paused.")
    hold_chat_s: float = Field(0.0, ge=0, description="The same in sessions of role agent, where a customer waits.")
    expires_s: float = Field(604_800.0, gt=0, description="How long a request, and what was approved, holds good.")
    pending: int = Field(50, gt=0, description="Requests of one session that may wait at once.")
    batch_calls: int = Field(200, gt=0, description="Calls of one batch.")
    preview_s: float = Field(10.0, gt=0, description="Time to look up what a call would change.")
    look_s: float = Field(1.0, gt=0, description="Seconds between two looks for what was decided at other gateways.")
    claim_s: float = Field(30.0, gt=0, description="A gateway that died while it ran a cell again is waited for.")
    elsewhere_s: float = Field(10.0, ge=0, description="A session's own gateway has this long to run its cell again.")
    own_sessions: bool = Field(False, description="People may decide about what sessions of their own token ask.")
    tenant_tokens: bool = Field(False, description="A tenant's access token decides about the tenant's calls, too.")
    writes: WriteCaps = WriteCaps()
    roles: dict[Literal["agent", "analyst", "operator"], WriteCaps] = Field(
        default_factory=dict, description="Other caps for sessions of a role, in place of `approvals.writes`."
    )
    approvers: dict[str, ApproverSettings] = Field(
        default_factory=dict, description="People who decide, by name; the server's own token does, too."
    )
