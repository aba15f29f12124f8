"""What a tool gets beside its arguments. The broker makes one per call; no tool finds credentials elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from .errors import ToolError
from .gdpr.office import DataProtection
from .scraping.rules import Rules
from .supabase.project import SupabaseProject


@dataclass(frozen=True)
class SyncLimits:
    """How a store is copied, and what is taken of it."""

    #: Objects asked for at once; wc/v3 gives 100 at most.
    page_size: int = 100
    #: Bytes of one answer, and of one object. Beyond the first fewer are asked for, beyond the second it is left out.
    page_bytes: int = 4 << 20
    object_bytes: int = 1 << 20
    #: Variations that one product may have.
    variations: int = 2000
    #: Seconds that one read waits for a store that is away or asks to wait.
    patience_s: float = 45.0
    #: Share of what is stored that one run may delete; beyond it the store is held to be broken. So few as
    #: `deleted_always` are deleted all the same.
    deleted_share: float = 0.2
    deleted_always: int = 10
    #: Hours after which all is read again, in place of what was modified; and after which an interrupted pass is begun
    #: anew.
    full_pass_hours: float = 24.0
    resume_hours: float = 24.0


@dataclass(frozen=True)
class Shop:
    """A WooCommerce store: where it is and the narrowest keys there are. Never logged, never sent to a kernel."""

    url: str
    consumer_key: str
    consumer_secret: str
    timeout_s: float = 20.0
    #: Requests under way at once, and started per second, over all sessions of this gateway.
    in_flight: int = 4
    requests_per_s: float = 50.0
    #: What this shop's webhooks are signed with; each topic's own secret is derived from it. "": no webhooks.
    webhook_secret: str = ""
    sync: SyncLimits = SyncLimits()

    def __repr__(self) -> str:
        return f"Shop(url={self.url!r}, consumer_key=***, consumer_secret=***, webhook_secret=***)"


class Rows(Protocol):
    """A database connection bound to the tenant by row-level security (`SET LOCAL`), inside one transaction."""

    async def fetch(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]: ...

    async def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int: ...


class TenantDatabase(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Rows]: ...

    def exclusive(self, what: str) -> AbstractAsyncContextManager[bool]:
        """True where nobody else does `what` for this tenant; then nobody does until the end, or this process's."""
        ...


class Embedder(Protocol):
    """Turns texts into unit vectors of `dimensions` floats."""

    dimensions: int

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...

    def token_counts(self, texts: Sequence[str]) -> list[int]: ...


class SessionPins(Protocol):
    """What is pinned to the session beside the tenant."""

    #: Upstream id of the customer that this conversation was verified for.
    customer: int | None
    #: True where a customer must be verified before personal data is read (chat); false for analysts.
    customer_required: bool

    async def pin_customer(self, customer_id: int) -> None:
        """Pin once. Raises ToolDenied when another customer is pinned already."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a long work is."""

    done: int
    #: None: nobody knows yet.
    total: int | None = None
    #: What is counted: "products".
    unit: str = "items"
    #: What it is at, in a few words.
    note: str = ""

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        return f"{self.done:,}{of} {self.unit}" + (f", {self.note}" if self.note else "")


@dataclass
class Meter:
    """What a call takes, as its tool counts it."""

    rows: int = 0
    bytes: int = 0
    #: Requests to an upstream, and those of them that were sent again.
    calls: int = 0
    retries: int = 0
    #: Characters of JSON that would have gone through a model's context, had it made these steps by single calls.
    direct_bytes: int = 0
    #: Most memory of the process above what it had at the first sample, MiB.
    peak_mb: float = 0.0
    _before: int | None = field(default=None, repr=False)

    def sample(self) -> None:
        """Look at the process's memory. It is the gateway's: what else runs there counts too."""
        resident = _resident()
        if self._before is None:
            self._before = resident
        self.peak_mb = max(self.peak_mb, (resident - self._before) / (1024 * 1024))


def _resident() -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _unseen(_: Progress) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class ToolContext:
    """One call's surroundings."""

    tenant: str
    session: str
    pins: SessionPins
    #: Same for every attempt at the same call; writes stamp it upstream so that they can be recognised.
    idempotency_key: str
    #: True when an earlier attempt may have reached the upstream: look for the stamp before writing.
    resuming: bool
    http: httpx.AsyncClient
    shop: Shop | None = None
    database: TenantDatabase | None = None
    embedder: Embedder | None = None
    #: The tenant's own tables.
    supabase: SupabaseProject | None = None
    #: What the tenant's crawls may do.
    scraping: Rules = field(default_factory=Rules)
    #: What the gateway keeps of people, for those who may give it out or erase it.
    data_protection: DataProtection | None = field(default=None, repr=False)
    #: Why `shop` or `supabase` is None, by that name, where the tenant has one that cannot be used as it is.
    unusable: Mapping[str, ToolError] = field(default_factory=dict, repr=False)
    #: The tenant's credentials that the tool's record names, and no others.
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: What the call takes, for the tool to count.
    meter: Meter = field(default_factory=Meter)
    #: Tells whoever watches how far a long work is. Returns at once.
    progress: Callable[[Progress], None] = field(default=_unseen, repr=False)
    _charges: list[float] = field(default_factory=list, repr=False)

    def charge(self, dollars: float) -> None:
        """Say what this call costs, as soon as that is known: the cell's and the session's budgets count it.

        Raises:
            ValueError: below zero, or no number.
        """
        if not 0 <= dollars < float("inf"):
            raise ValueError(f"a call cannot cost {dollars} dollars")
        self._charges.append(dollars)

    @property
    def charged(self) -> float:
        """US dollars so far."""
        return sum(self._charges)
