"""What the gateway does for these tools: most of what there is of a person is in the gateway's own keeping."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeAlias, TypedDict

from msgspec import Meta

if TYPE_CHECKING:
    from ..context import Progress


class Exported(TypedDict):
    """What an export came to: counts, and where the file is."""

    link: Annotated[str, Meta(description="whoever has it has the file, until it expires")]
    expires: Annotated[str, Meta(description="UTC")]
    export: Annotated[str, Meta(description="id, to revoke it by")]
    rows: int
    bytes: int
    file_bytes: int
    sha256: Annotated[str, Meta(description="of the file")]
    tables: Annotated[dict[str, int], Meta(description="rows by table, where there are any")]
    sessions: Annotated[int, Meta(description="conversations with the person")]
    incomplete: Annotated[list[str], Meta(description="what could not be asked, and why")]


class Kept(TypedDict):
    what: str
    rows: int
    why: str


class Erased(TypedDict):
    """How an erasure stands."""

    erasure: Annotated[str, Meta(description="id")]
    state: Annotated[
        Literal["running", "waiting", "done"],
        Meta(description="waiting: goes on by itself when the sessions in waiting_for have ended"),
    ]
    removed: Annotated[dict[str, int], Meta(description="rows removed or emptied, by table")]
    kept: list[Kept]
    sessions: Annotated[int, Meta(description="conversations with the person that were erased")]
    waiting_for: Annotated[list[str], Meta(description="open sessions that name the person")]
    problems: list[str]


ExportParts: TypeAlias = "AsyncIterator[Progress | Exported]"
ErasureParts: TypeAlias = "AsyncIterator[Progress | Erased]"


class DataProtection(Protocol):
    """Bound to one call: its tenant, its session, who asks. All raise ToolError."""

    def export(self, email: str, customer_id: int) -> ExportParts:
        """Write the file; last its link. Closed before its end, nothing is left of it."""
        ...

    def erase(self, email: str, customer_id: int, reason: str) -> ErasureParts:
        """Erase, in a call that may be made again. Closed before its end, it goes on all the same."""
        ...

    async def erasure(self, erasure: str) -> Erased:
        """How an erasure stands."""
        ...

    async def counts(self, email: str, customer_id: int) -> Mapping[str, int]:
        """Rows by table that an erasure would remove or empty."""
        ...
