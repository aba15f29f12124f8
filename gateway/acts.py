"""Who may do what: one table of acts and roles. What it does not name, nobody may.

Each route of the gateway names its act, under the route's own decorator:

    @router.post("/v1/things")
    @act("sessions.run")
    async def make_thing(caller: Caller) -> Thing: ...

An application with a route that names none does not start (`gateway.routes.guard`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from gateway.types import Role as SessionRole

#: What keys and JWTs may have.
KeyRole: TypeAlias = Literal["agent", "analyst", "ops", "admin"]
#: And what the tokens of the configuration have: a tenant's own one, those of people who only decide about calls, and
#: the one that only reads metrics.
CallerRole: TypeAlias = KeyRole | Literal["tenant", "approver", "metrics"]

Act: TypeAlias = Literal[
    "public",  # without a token
    "about",  # what this gateway is and how it is
    "tools.look",  # tools, and MCP servers with their states
    "sessions.look",  # sessions, their cells and results
    "sessions.run",  # begin a session, run cells, files, a new kernel
    "sessions.end",  # end a session, interrupt what runs
    "chat",  # put messages to the agent
    "kernels",  # kernels of Jupyter clients
    "work.look",  # long work: how far it is, what it took
    "transcripts.read",
    "transcripts.replay",  # runs cells
    "transcripts.record",  # the record as it is, with nothing masked
    "transcripts.erase",
    "approvals.look",  # calls that wait, writes that were made
    "approvals.decide",  # and taking back
    "catalogue.load",
    "operations",  # connections: for who keeps the gateway running
    "metrics",
    "tools.decide",  # what foreign tools are taken for
    "credentials",
    "keys",
    "audit",
    "gdpr",  # files with what is kept of one person
]

KEY_ROLES: tuple[KeyRole, ...] = get_args(KeyRole)
ACTS: tuple[Act, ...] = get_args(Act)

_WORKS: frozenset[CallerRole] = frozenset({"agent", "analyst", "tenant", "admin"})
_READS: frozenset[CallerRole] = frozenset({"analyst", "tenant", "ops", "admin"})
_ALL: frozenset[CallerRole] = _WORKS | {"ops"}
_ADMIN: frozenset[CallerRole] = frozenset({"admin"})

#: By act, the roles that may do it. "public" is no act of a role: it is asked of nobody.
MAY: Mapping[Act, frozenset[CallerRole]] = MappingProxyType(
    {
        "about": _ALL,
        "tools.look": _ALL,
        "sessions.look": _ALL,
        "sessions.run": _WORKS,
        "sessions.end": _ALL,
        "chat": _WORKS,
        "kernels": _WORKS - {"agent"},
        "work.look": _READS,
        "transcripts.read": _READS,
        "transcripts.replay": _READS - {"ops"},
        "transcripts.record": _ADMIN,
        "transcripts.erase": _ADMIN,
        "approvals.look": frozenset({"tenant", "ops", "admin", "approver"}),
        # a tenant's own token: where `approvals.tenant_tokens` says so, which the desk looks at
        "approvals.decide": frozenset({"tenant", "ops", "admin", "approver"}),
        "catalogue.load": frozenset({"tenant", "ops", "admin"}),
        "operations": frozenset({"ops", "admin"}),
        "metrics": frozenset({"ops", "admin", "metrics"}),
        "tools.decide": _ADMIN,
        "credentials": _ADMIN,
        "keys": _ADMIN,
        "audit": _ADMIN,
        "gdpr": _ADMIN,
    }
)

#: By role of the caller, the roles of sessions that it begins, sees and ends.
SESSIONS: Mapping[CallerRole, frozenset[SessionRole]] = MappingProxyType(
    {
        "agent": frozenset({"agent"}),
        "analyst": frozenset({"agent", "analyst"}),
        "tenant": frozenset({"agent", "analyst"}),
        "ops": frozenset({"agent", "analyst", "operator"}),
        "admin": frozenset({"agent", "analyst", "operator"}),
        "approver": frozenset(),
        "metrics": frozenset(),
    }
)

#: Kept in the audit, whatever comes of them.
ADMINISTRATIVE: frozenset[Act] = frozenset(
    {"transcripts.record", "transcripts.erase", "approvals.decide", "tools.decide", "credentials", "keys", "gdpr"}
)

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_ATTRIBUTE = "__omniops_act__"


def may(role: CallerRole, act: Act) -> bool:
    return role in MAY.get(act, ())


def act(name: Act) -> Callable[[Endpoint], Endpoint]:
    """Declare what a route does, for the table to say who may. Goes under the decorator of the route."""
    if name not in ACTS:
        raise ValueError(f"there is no act {name!r}; there are: {', '.join(ACTS)}")

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, name)
        return endpoint

    return declare


def act_of(endpoint: object) -> Act | None:
    """What `endpoint` declares; None for nothing."""
    found: Act | None = getattr(endpoint, _ATTRIBUTE, None)
    return found
