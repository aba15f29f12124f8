"""Long work of a tool, from a cell: shown, entered, stopped between two steps, gone on with."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
from gateway.routes.work import WorkRunView
from gateway.settings import TenantSettings
from gateway.testing import ToolSession, tool_session
from servers.errors import ToolDenied, UpstreamError
from servers.work import Progress, work

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"

LAB = '''
"""A laboratory."""
import asyncio
from collections.abc import AsyncIterator
from typing import Annotated
from msgspec import Meta
from servers.context import ToolContext
from servers.database import database_of
from servers.errors import UpstreamError
from servers.tool import STAFF
from servers.work import Progress, Report, clear_checkpoint, load_checkpoint, save_checkpoint, work

Steps = Annotated[int, Meta(description="how many", ge=0, le=1000)]


class Counted(Report):
    begun_at: int
    steps: int


@work(workload="lab", roles=STAFF)
async def tally(
    ctx: ToolContext, *, steps: Steps, halt_at: Steps = 0, fail_at: Steps = 0
) -> AsyncIterator[Progress | Counted]:
    """Count, a step at a time."""
    async with database_of(ctx).transaction() as rows:
        before = await load_checkpoint(rows, ctx, "count") or {"step": 0}
    for step in range(before["step"] + 1, steps + 1):
        if step == fail_at:
            raise UpstreamError("the counter is out of order")
        ctx.meter.rows += 1
        ctx.meter.calls += 2
        ctx.meter.direct_bytes += 1000
        async with database_of(ctx).transaction() as rows:
            await save_checkpoint(rows, ctx, "count", {"step": step})
        yield Progress(step, steps, "steps", "counting\\x1b[31m")
        if step == halt_at:
            await asyncio.sleep(3600)
    async with database_of(ctx).transaction() as rows:
        await clear_checkpoint(rows, ctx, "count")
    yield Counted(begun_at=before["step"], steps=steps)
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolSession]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "lab").mkdir()
    (folder / "lab" / "__init__.py").write_text('"""A laboratory."""\n')
    (folder / "lab" / "tools.py").write_text(LAB)
    (folder / "census").mkdir()
    (folder / "census" / "__init__.py").write_text('"""Houses."""\n')
    (block,) = [
        each for each in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S) if "@work" in each
    ]
    (folder / "census" / "tools.py").write_text(block)
    before = list(servers.__path__)
    with tool_session(folder, tenants={"rival": TenantSettings()}) as tools:
        yield tools
    servers.__path__[:] = before  # what was loaded from there is forgotten again
    for name in [each for each in sys.modules if each.startswith(("servers.lab", "servers.census"))]:
        del sys.modules[name]


def runs(lab: ToolSession, tenant: str = "trial") -> list[Any]:
    return lab._portal.call(lab.gateway.work.list, tenant)


def stdout(run: Any) -> str:
    return "".join(each["text"] for each in run.result.outputs if each.get("name") == "stdout")


def test_a_cell_gets_the_report_and_sees_how_far_it_is(lab: ToolSession) -> None:
    run = lab.cell(
        "from servers.lab import tally\nreport = tally(steps=3)\nprint(report['steps'], report['run']['calls'])"
    )
    assert run.result.status == "ok", run.envelope
    assert "\rtally: 3 of 3 steps, counting [31m" in stdout(run)
    assert stdout(run).endswith("\n3 6\n")
    assert run.calls[-1].effect == "write"
    assert run.calls[-1].result["run"]["rows"] == 3
    last = runs(lab)[0]
    assert (last.state, last.workload, last.done, last.total, last.rows) == ("done", "lab", 3, 3, 3)
    assert (last.calls, last.direct_bytes, last.ended is not None) == (6, 3000, True)
    assert last.report_bytes > 20
    WorkRunView.model_validate(last, from_attributes=True)


def test_a_step_that_fails_is_told_and_the_next_call_goes_on_there(lab: ToolSession) -> None:
    with pytest.raises(UpstreamError, match="out of order"):
        lab.call("lab.tally", steps=6, fail_at=4)
    assert (runs(lab)[0].state, runs(lab)[0].error) == ("failed", "the counter is out of order")
    assert lab.call("lab.tally", steps=6)["begun_at"] == 3
    assert lab.call("lab.tally", steps=1)["begun_at"] == 0


def test_an_interrupted_cell_stops_it_between_two_steps(lab: ToolSession) -> None:
    async def interrupted() -> Any:
        sessions = lab.gateway.sessions
        code = "from servers.lab import tally\ntally(steps=9, halt_at=5)"
        cell = asyncio.create_task(sessions.run_cell(lab.session, code, cell_id="halting", deadline_s=3000))
        async with asyncio.timeout(60):
            while not (found := await lab.gateway.work.list("trial")) or found[0].state != "running":
                await asyncio.sleep(0.02)
            while not await lab.gateway.database.fetch("SELECT FROM work_checkpoint WHERE state->>'step' = '5'"):
                await asyncio.sleep(0.02)
            await sessions.interrupt(lab.session)
            ended = await cell
            while (await lab.gateway.work.list("trial"))[0].state == "running":  # it is being written down
                await asyncio.sleep(0.02)
            return ended

    run = lab._portal.call(interrupted)
    assert run.result.status == "interrupted"
    assert runs(lab)[0].state == "stopped"
    assert run.calls[-1].state == "failed"
    assert lab.call("lab.tally", steps=9)["begun_at"] == 5


def test_who_may_not_call_it_may_not(lab: ToolSession) -> None:
    with pytest.raises(ToolDenied):
        lab.another(role="agent").call("lab.tally", steps=1)


def test_tenants_have_checkpoints_and_runs_of_their_own(lab: ToolSession) -> None:
    with pytest.raises(UpstreamError):
        lab.call("lab.tally", steps=6, fail_at=4)
    rival = lab.another(tenant="rival")
    assert rival.call("lab.tally", steps=2)["begun_at"] == 0
    assert [each.tenant for each in runs(lab, "rival")] == ["rival"]
    assert lab.call("lab.tally", steps=6)["begun_at"] == 3


def test_a_direct_call_gets_the_report_too(lab: ToolSession) -> None:
    async def direct() -> Any:
        gateway = lab.gateway
        grant = gateway.sessions._book.live[lab.session].grant
        await gateway.broker.begin_cell(lab.session, "direct")
        try:
            return await gateway.broker.call(grant, "lab.tally", {"steps": 2})
        finally:
            await gateway.broker.end_cell(lab.session)

    assert lab._portal.call(direct)["steps"] == 2


def test_a_run_whose_gateway_was_killed_is_lost(lab: ToolSession) -> None:
    database = lab.gateway.database
    sql = (
        "INSERT INTO work_run (tenant, workload, tool, session, call, seen)"
        " VALUES ('trial', 'lab', 'lab.tally', 's', 'c', now() - interval '1 hour')"
    )
    lab._portal.call(database.execute, sql)
    assert runs(lab)[0].state == "lost"


def test_a_work_says_what_its_report_is() -> None:
    async def steps(ctx: Any) -> Any:
        yield Progress(1)

    with pytest.raises(TypeError, match="Progress"):
        work(workload="x")(steps)


def test_the_example_of_the_page_on_tools(lab: ToolSession) -> None:
    report = lab.call("census.visit_houses", houses=3)
    assert (report["begun_at"], report["houses"], report["run"]["rows"]) == (0, 3, 3)
