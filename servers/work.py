"""Long work as a tool: it tells how far it is, can be stopped between two steps, and goes on where it stopped.

    class Counted(Report):
        pages: int

    @work(workload="ingest", roles=STAFF)
    async def count_pages(ctx: ToolContext, *, site: str) -> AsyncIterator[Progress | Counted]:
        \"\"\"Count a site's pages.\"\"\"
        ...
        yield Progress(done, total, "pages")
        ...
        yield Counted(pages=done)

To a cell it is one call, which shows its progress and returns the report, the generator's last part. An interrupted
cell closes the generator where it yields or awaits: leave nothing half-written there. Where a call continues an earlier
one, the work keeps what that needs as a checkpoint, best in the transaction of the step that it belongs to.
"""

from __future__ import annotations

import contextlib
import inspect
import time
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, NotRequired, TypedDict

import msgspec

from .context import Progress as Progress
from .context import Rows, ToolContext
from .errors import UpstreamError
from .preview import MakePreview, MakeUndo
from .rendering import Annotation
from .tool import OPERATOR, Effect, Role, Tool, parameters_of, server_of


class RunFigures(TypedDict):
    """What a run took."""

    rows: int
    bytes: int
    calls: int
    retries: int
    seconds: float
    peak_mb: float
    direct_bytes: int


class Report(TypedDict):
    """What a work comes to; each has its own counts beside this."""

    run: NotRequired[RunFigures]


Steps = Callable[..., AsyncIterator[Any]]


def work(
    *,
    workload: str,
    effect: Effect = "write",
    roles: tuple[Role, ...] = OPERATOR,
    revert: str = "",
    name: str = "",
    credentials: tuple[str, ...] = (),
    preview: MakePreview | None = None,
    undo: MakeUndo | None = None,
) -> Callable[[Steps], Tool]:
    """Make an async generator of `Progress` and, last, one report into a tool that returns the report.

    `workload`: under which it is counted: sync, ingest, report, gdpr. The rest is as `servers.tool.tool` has it.
    """

    def decorate(steps: Steps) -> Tool:
        report = _report_of(steps)

        async def whole(ctx: ToolContext, **args: Any) -> Any:
            return await _to_its_end(ctx, steps, args)

        return Tool(
            server=server_of(steps),
            name=name or steps.__name__,
            doc=inspect.getdoc(steps) or "",
            parameters=parameters_of(steps),
            returns=report,
            effect=effect,
            revert=revert,
            roles=roles,
            credentials=credentials,
            preview=preview,
            undo=undo,
            workload=workload,
            implementation=whole,
        )

    return decorate


async def _to_its_end(ctx: ToolContext, steps: Steps, args: Mapping[str, Any]) -> Any:
    """The report, with what the run took."""
    begun, meter, report = time.monotonic(), ctx.meter, None
    meter.sample()
    parts = steps(ctx, **args)
    assert isinstance(parts, AsyncGenerator)
    async with contextlib.aclosing(parts):
        async for part in parts:
            meter.sample()
            if isinstance(part, Progress):
                ctx.progress(part)
            else:
                report = part
    if report is None:
        raise UpstreamError(f"{steps.__name__} ended without a report.")
    run = RunFigures(
        rows=meter.rows,
        bytes=meter.bytes,
        calls=meter.calls,
        retries=meter.retries,
        seconds=round(time.monotonic() - begun, 3),
        peak_mb=round(meter.peak_mb, 1),
        direct_bytes=meter.direct_bytes,
    )
    return {**report, "run": run}


def _report_of(steps: Steps) -> Annotation:
    """The report's type: what the generator yields beside `Progress`. Raises TypeError."""
    returns = typing.get_type_hints(steps, include_extras=True).get("return")
    parts = typing.get_args(returns)
    kinds = [each for each in typing.get_args(parts[0]) if each is not Progress] if parts else []
    if len(kinds) != 1 or typing.get_origin(returns) is not AsyncIterator:
        where = f"{steps.__module__}.{steps.__name__}"
        raise TypeError(f"{where}: a work returns AsyncIterator[Progress | ITS_REPORT]")
    return kinds[0]


async def load_checkpoint(rows: Rows, ctx: ToolContext, name: str) -> dict[str, Any] | None:
    """What `save_checkpoint` kept last under this name for the tenant; None where there is nothing."""
    found = await rows.fetch("SELECT state FROM work_checkpoint WHERE tenant = %s AND name = %s", (ctx.tenant, name))
    return found[0]["state"] if found else None


async def save_checkpoint(rows: Rows, ctx: ToolContext, name: str, state: Mapping[str, Any]) -> None:
    """Keep where the work is, as plain JSON. It holds once the transaction of `rows` has committed."""
    await rows.execute(
        "INSERT INTO work_checkpoint (tenant, name, state) VALUES (%s, %s, %s::jsonb)"
        " ON CONFLICT (tenant, name) DO UPDATE SET state = excluded.state, saved = now()",
        (ctx.tenant, name, msgspec.json.encode(state).decode()),
    )


async def clear_checkpoint(rows: Rows, ctx: ToolContext, name: str) -> None:
    """The work is over: the next one begins at the beginning."""
    await rows.execute("DELETE FROM work_checkpoint WHERE tenant = %s AND name = %s", (ctx.tenant, name))
