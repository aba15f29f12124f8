"""The rights of a person whose data a shop has: to have it, and to have it erased."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, cast

from msgspec import Meta

from ..context import ToolContext
from ..errors import ToolDenied
from ..preview import Preview
from ..tool import OPERATOR, tool
from ..work import Progress, Report, work
from .office import DataProtection, Erased, Exported

Email = Annotated[str, Meta(description="the person's e-mail; '' if only the id is known", max_length=254)]
CustomerId = Annotated[int, Meta(description="the shop's id of the person; 0 if only the e-mail is known", ge=0)]


class ExportReport(Exported, Report):
    """Counts, and the link: nothing of the person itself."""


class ErasureReport(Erased, Report):
    """What was removed, what was kept and why."""


def office_of(ctx: ToolContext) -> DataProtection:
    """
    Raises:
        ToolDenied: this call was given none.
    """
    if ctx.data_protection is None:
        raise ToolDenied("This call has no access to what is kept of people.", hint="Call it from a cell.")
    return ctx.data_protection


@work(workload="gdpr", roles=OPERATOR, revert="revoke the export (DELETE /v1/exports/EXPORT): its file is removed")
async def export_person(
    ctx: ToolContext, *, email: Email = "", customer_id: CustomerId = 0
) -> AsyncIterator[Progress | ExportReport]:
    """Put everything about one person into a file, and tell its link, which expires.

    The data itself does not come into the cell: counts, and the link to give to the person.
    """
    parts = office_of(ctx).export(email, customer_id)
    assert isinstance(parts, AsyncGenerator)
    async with contextlib.aclosing(parts):
        async for part in parts:
            if isinstance(part, Progress):
                yield part
                continue
            ctx.meter.rows, ctx.meter.bytes, ctx.meter.direct_bytes = part["rows"], part["bytes"], part["bytes"]
            yield cast(ExportReport, part)


async def preview(ctx: ToolContext, *, email: str, customer_id: int, reason: str) -> Preview:
    """What would be erased."""
    found = await office_of(ctx).counts(email, customer_id)
    who = " and ".join(each for each in (email.strip(), f"customer {customer_id}" if customer_id else "") if each)
    return Preview(
        target=f"all data of {who}",
        before={name: f"{rows:,} rows" for name, rows in found.items()},
        after=dict.fromkeys(found, "removed or emptied"),
        note="Nothing brings it back. The store's own data is not touched.",
    )


@work(workload="gdpr", effect="critical", roles=OPERATOR, preview=preview)
async def erase_person(
    ctx: ToolContext,
    *,
    email: Email = "",
    customer_id: CustomerId = 0,
    reason: Annotated[str, Meta(description="such as 'asked for it by letter'", max_length=300)] = "",
) -> AsyncIterator[Progress | ErasureReport]:
    """Erase everything about one person here, for good, but what the law has us keep; tell what was kept and why.

    Once begun it goes on whatever becomes of the cell: show_erasure tells how far it is.
    """
    async for part in office_of(ctx).erase(email, customer_id, reason):
        if isinstance(part, Progress):
            yield part
        else:
            ctx.meter.rows = sum(part["removed"].values())
            yield cast(ErasureReport, part)


@tool(effect="read", roles=OPERATOR)
async def show_erasure(
    ctx: ToolContext, *, erasure: Annotated[str, Meta(description="its id", max_length=128)]
) -> Erased:
    """Tell how far the erasure of a person has come."""
    return await office_of(ctx).erasure(erasure)
