"""Each run of a long work has a row: how far it is while it goes on, and what it took once it is over."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import psycopg
import structlog

from gateway.db import Database
from servers.context import Progress, ToolContext
from servers.errors import ToolError
from servers.tool import Tool

log = structlog.get_logger(__name__)

#: Seconds between two steps that are shown, and between two that are kept.
SHOWN_S = 0.2
KEPT_S = 2.0

#: A run whose row says that it runs, and was not seen for this long, has broken off. Seconds.
LOST_S = 60.0

RunState = Literal["running", "done", "failed", "stopped", "lost"]

#: Longest text of a step, characters.
_LINE = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class WorkRun(msgspec.Struct, frozen=True, omit_defaults=False):
    """One run, as ops see it. Memory in MiB, money in US dollars, times in ISO 8601."""

    id: int
    tenant: str
    workload: str
    tool: str
    session: str
    state: RunState
    done: int
    total: int | None
    unit: str
    note: str
    error: str
    rows: int
    bytes: int
    calls: int
    retries: int
    peak_mb: float
    dollars: float
    direct_bytes: int
    report_bytes: int
    seconds: float
    started: str
    ended: str | None


def one_line(text: str) -> str:
    """Fit for a terminal: no control characters, no line breaks, not long."""
    return _CONTROL.sub(" ", text)[:_LINE]


class Run:
    """One that is under way."""

    def __init__(self, runs: WorkRuns, id: int, context: ToolContext) -> None:
        self._runs = runs
        self._id = id
        self._context = context
        self._shown = self._kept = 0.0
        self._keeping: asyncio.Task[None] | None = None
        self._last = Progress(0)
        self._report_bytes = 0

    def step(self, progress: Progress) -> bool:
        """Whether it is worth showing: not too soon after the last one."""
        now, self._last = time.monotonic(), progress
        if now - self._kept >= KEPT_S and (self._keeping is None or self._keeping.done()):
            self._kept = now
            self._keeping = asyncio.create_task(self.keep("running"))
        whole = progress.done == progress.total
        if not whole and now - self._shown < SHOWN_S:
            return False
        self._shown = now
        return True

    def over(self, report: Any) -> Any:
        """The work came to its report, which is given back."""
        self._report_bytes = len(msgspec.json.encode(report))
        return report

    async def keep(self, state: RunState, error: str = "") -> None:
        """Write what is known. The work does not fail where that cannot be."""
        last, meter = self._last, self._context.meter
        try:
            await self._runs.database.execute(
                """
                UPDATE work_run SET state = %(state)s, done = %(done)s, total = %(total)s, unit = %(unit)s,
                    note = %(note)s, error = %(error)s, rows = %(rows)s, bytes = %(bytes)s, calls = %(calls)s,
                    retries = %(retries)s, peak_mb = %(peak_mb)s, dollars = %(dollars)s,
                    direct_bytes = %(direct_bytes)s, report_bytes = %(report_bytes)s, seen = clock_timestamp(),
                    ended = CASE WHEN %(state)s = 'running' THEN NULL ELSE clock_timestamp() END
                WHERE id = %(id)s
                """,
                {
                    "id": self._id,
                    "state": state,
                    "done": last.done,
                    "total": last.total,
                    "unit": one_line(last.unit),
                    "note": one_line(last.note),
                    "error": one_line(error),
                    "rows": meter.rows,
                    "bytes": meter.bytes,
                    "calls": meter.calls,
                    "retries": meter.retries,
                    "peak_mb": meter.peak_mb,
                    "dollars": self._context.charged,
                    "direct_bytes": meter.direct_bytes,
                    "report_bytes": self._report_bytes,
                },
            )
        except psycopg.Error as problem:
            log.warning("a run of long work cannot be kept", run=self._id, error=str(problem).partition("\n")[0])

    async def settle(self) -> None:
        """What is being written is written."""
        if self._keeping is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping


class WorkRuns:
    """Those of this database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @asynccontextmanager
    async def run(self, context: ToolContext, tool: Tool) -> AsyncIterator[Run]:
        """Enter a run; at the end its row says how it ended."""
        row = await self.database.fetch_one(
            "INSERT INTO work_run (tenant, workload, tool, session, call) VALUES (%s, %s, %s, %s, %s) RETURNING id",
            (context.tenant, tool.workload, tool.qualified_name, context.session, context.idempotency_key),
        )
        assert row is not None
        run = Run(self, row["id"], context)
        state: RunState = "failed"
        error = ""
        try:
            yield run
            state = "done"
        except asyncio.CancelledError:
            state = "stopped"
            raise
        except ToolError as problem:
            error = problem.message
            raise
        except Exception as problem:
            error = type(problem).__name__
            raise
        finally:
            await run.settle()
            await run.keep(state, error)

    async def list(self, tenant: str | None, *, workload: str | None = None, limit: int = 100) -> list[WorkRun]:
        """The last ones, newest first; `tenant` None: of all tenants."""
        rows = await self.database.fetch(
            """
            SELECT id, tenant, workload, tool, session, done, total, unit, note, error, rows, bytes, calls, retries,
                peak_mb, dollars, direct_bytes, report_bytes, started::text, ended::text,
                CASE WHEN state = 'running' AND seen < now() - make_interval(secs => %(lost)s)
                     THEN 'lost' ELSE state END AS state,
                extract(epoch FROM coalesce(ended, seen) - started)::float8 AS seconds
            FROM work_run
            WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
              AND (%(workload)s::text IS NULL OR workload = %(workload)s)
            ORDER BY id DESC LIMIT %(limit)s
            """,
            {"tenant": tenant, "workload": workload, "limit": limit, "lost": LOST_S},
        )
        return [msgspec.convert(row, WorkRun) for row in rows]
