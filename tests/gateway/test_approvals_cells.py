"""Paused cells in real kernels: they run again by themselves, in a warm kernel or a new one, at whichever gateway."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import counting
import pytest
from approval_world import ANNA
from gateway_world import own_database, settings_for

from gateway.approvals.desk import Desk
from gateway.approvals.rows import ApprovalRows
from gateway.approvals.types import Approval
from gateway.db import Database
from gateway.runtime import Gateway, open_gateway
from gateway.settings import ApprovalSettings, DatabaseSettings
from gateway.types import CellRun

APPROVALS = {"hold_s": 0, "hold_chat_s": 0, "look_s": 0.05, "elsewhere_s": 0.2, "claim_s": 1}
PAY = "from servers.counting import add, pay, look\n"


class Clock:
    ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@asynccontextmanager
async def running(url: str, clock: Any = None, data: Path | None = None, **approvals: Any) -> AsyncIterator[Gateway]:
    """`data`: of a gateway that goes on where another ended."""
    with tempfile.TemporaryDirectory(prefix="omniops-") as folder:
        settings = settings_for(
            data or Path(folder) / "data",
            url,
            approvals={**APPROVALS, **approvals},
            server={"shutdown_grace_s": 0.2},
            agent={"everyday_tools": ()},
        )
        async with open_gateway(settings, registry=counting.registry(), clock=clock or Clock()) as gateway:
            yield gateway


@pytest.fixture(scope="module")
def url(postgres: str) -> Any:
    with own_database(postgres) as found:
        yield found


async def settled(gateway: Gateway, session: str, cell: str, *, not_: tuple[str, ...] = ("paused", "running")) -> Any:
    """The cell's row and result, as soon as it waits for nothing."""
    async with asyncio.timeout(60):
        while True:
            row, node = await gateway.sessions.cell(session, cell)
            if row.status not in not_:
                return node
            await asyncio.sleep(0.05)


async def resumed(gateway: Gateway, id: str) -> Approval:
    async with asyncio.timeout(60):
        while (found := await gateway.desk.get(ANNA, id)).resumed is None:
            await asyncio.sleep(0.05)
    return found


async def total(gateway: Gateway, name: str) -> int:
    row = await gateway.database.fetch_one(
        "SELECT coalesce(sum(amount), 0)::int AS n FROM effect WHERE name = %s", (name,)
    )
    return row["n"] if row else 0


async def pending(gateway: Gateway, session: str) -> Approval:
    (found,) = await gateway.desk.find(ANNA, session=session, state="pending")
    return found


def printed(run: CellRun) -> str:
    return "".join(str(each.get("text", "")) for each in run.result.outputs if each["output_type"] == "stream")


async def test_paused_cells(url: str, tmp_path: Path) -> None:
    """One pair of gateways for all that needs a kernel: starting them is what takes time."""
    clock, data = Clock(), tmp_path / "data"
    async with running(url, clock, data) as one:
        await one.database.execute(counting.UPSTREAM)
        await _warm(one)
        await _denied(one)
        await _caught(one)
        await _batch(one)
        await _ended(one)
        await _kernel_gone(one, clock)
        await _no_way_from_a_kernel(one)
        await _killed_in_between(one)
        session, cell, id = await _left_behind(one)
        async with running(url, clock) as other:
            await _twice_at_once(one, other)
    await _approved_while_no_gateway_runs(url, clock, id)
    async with running(url, clock, data) as later:
        await _taken_up(later, session, cell, id)


async def _session(gateway: Gateway) -> str:
    return (await gateway.sessions.create("shop", "operator", "operator")).id


async def _warm(gateway: Gateway) -> None:
    """The cell ends paused; after the decision it runs again by itself in the same kernel, under the journal."""
    session = await _session(gateway)
    await gateway.sessions.run_cell(session, "runs = 0; before = 41")
    code = f"{PAY}runs += 1\nadd(name='warm')\npaid = pay(name='warm', amount=7)\nprint(before + 1, paid['total'])"
    run = await gateway.sessions.run_cell(session, code)
    assert run.result.status == "paused"
    assert [(each.tool, each.state) for each in run.calls] == [("counting.add", "applied"), ("counting.pay", "pending")]
    assert "status: paused" in run.envelope
    assert "waits:  counting.pay(name='warm', amount=7)" in run.envelope
    assert "done so far: counting.add" in run.envelope
    asked = await pending(gateway, session)
    assert (await gateway.sessions.cell(session, run.cell))[0].status == "paused"
    # other cells run meanwhile
    assert (await gateway.sessions.run_cell(session, "before")).result.status == "ok"
    await gateway.desk.approve(ANNA, asked.id)
    node = await settled(gateway, session, run.cell)
    assert node["metadata"]["omniops"]["status"] == "ok"
    assert node["outputs"][0]["text"] == "42 8\n"
    assert await total(gateway, "warm") == 8
    assert "42 8" in (await resumed(gateway, asked.id)).outcome
    await gateway.sessions.end(session)


async def _denied(gateway: Gateway) -> None:
    session = await _session(gateway)
    code = f"""{PAY}from servers.errors import ApprovalDenied
try:
    pay(name='denied', amount=7)
except ApprovalDenied as error:
    print('refused:', error)
"""
    run = await gateway.sessions.run_cell(session, code)
    assert run.result.status == "paused"
    await gateway.desk.deny(ANNA, (await pending(gateway, session)).id, note="no budget")
    node = await settled(gateway, session, run.cell)
    assert "no budget" in node["outputs"][0]["text"]
    assert await total(gateway, "denied") == 0
    await gateway.sessions.end(session)


async def _caught(gateway: Gateway) -> None:
    """Code that swallows everything cannot go on as if its call had been made, nor make others."""
    session = await _session(gateway)
    code = (
        f"{PAY}try:\n    pay(name='caught', amount=1)\nexcept BaseException:\n    pass\ntry:\n    add(name='caught')\n"
    )
    run = await gateway.sessions.run_cell(session, f"{code}except BaseException:\n    pass")
    assert run.result.status == "paused"
    assert await total(gateway, "caught") == 0
    await gateway.sessions.end(session)


async def _batch(gateway: Gateway) -> None:
    session = await _session(gateway)
    code = f"""{PAY}from servers import approvals
from servers.errors import ApprovalDenied
with approvals.batch("Pay three") as batch:
    handles = [pay(name='batch', amount=n) for n in (1, 10, 100)]
    print(handles[0].state, len(batch), look(name='batch')['total'])
done = []
for handle in handles:
    try:
        done.append(handle.result['total'])
    except ApprovalDenied:
        done.append('denied')
print(done)
"""
    run = await gateway.sessions.run_cell(session, code)
    assert run.result.status == "paused", run.envelope
    asked = await pending(gateway, session)
    assert (asked.title, len(asked.calls)) == ("Pay three", 3)
    await gateway.desk.approve(ANNA, asked.id, calls=[1, 3])
    node = await settled(gateway, session, run.cell)
    assert node["outputs"][0]["text"] == "noted 3 0\n[1, 'denied', 101]\n"
    failed = await gateway.sessions.run_cell(
        session,
        f"{PAY}from servers import approvals\nwith approvals.batch('x'):\n    pay(name='batch', amount=5)\n    1 / 0",
    )
    assert (failed.result.status, failed.calls) == ("error", ())
    await gateway.sessions.end(session)


async def _ended(gateway: Gateway) -> None:
    """The end of a session takes its requests with it."""
    session = await _session(gateway)
    run = await gateway.sessions.run_cell(session, f"{PAY}pay(name='gone', amount=1)")
    asked = await pending(gateway, session)
    await gateway.sessions.end(session)
    assert run.result.status == "paused"
    assert (await gateway.desk.get(ANNA, asked.id)).state == "withdrawn"


async def _kernel_gone(gateway: Gateway, clock: Clock) -> None:
    """Approved a day later, with the kernel long gone: the session is restored, then the cell run."""
    session = await _session(gateway)
    await gateway.sessions.run_cell(session, f"{PAY}add(name='gone2'); x = 5")
    run = await gateway.sessions.run_cell(session, "print(x, pay(name='gone2', amount=x)['total'])")
    kernel = gateway.sessions.kernel(session)
    assert kernel is not None
    await gateway.pool.release(kernel)
    clock.ahead += timedelta(days=1)
    await gateway.desk.approve(ANNA, (await pending(gateway, session)).id)
    node = await settled(gateway, session, run.cell)
    assert node["outputs"][0]["text"] == "5 6\n"
    assert await total(gateway, "gone2") == 6
    await gateway.sessions.end(session)


async def _no_way_from_a_kernel(gateway: Gateway) -> None:
    """Neither the broker's socket nor any other door leads to a decision."""
    session = await _session(gateway)
    await gateway.sessions.run_cell(session, f"{PAY}pay(name='attack', amount=1)")
    asked = await pending(gateway, session)
    code = f"""
import json, os, socket, sys
from servers import approvals
found = [name for name in dir(approvals) if not name.startswith('_')]
client = next(f for f in sys.meta_path if type(f).__name__ == 'ToolFinder')._client
tried = {{}}
for tool in ('approvals.approve', 'approvals.decide', 'approvals.deny', 'approvals', 'calls.revert', 'approvals.batch'):
    for args in ({{'id': {asked.id!r}}}, {{'title': 'x', 'calls': [{{'tool': 'approvals.approve', 'args': {{}}}}]}}):
        try:
            tried[tool] = client.call(tool, args)
        except Exception as error:
            tried[tool] = error.error.type
reached = []
for port in (80, 443, 5432, 8765):
    try:
        socket.create_connection(('127.0.0.1', port), 0.2)
        reached.append(port)
    except OSError:
        pass
print(json.dumps([found, sorted(set(tried.values())), reached, sorted(k for k in os.environ if 'TOKEN' in k)]))
"""
    run = await gateway.sessions.run_cell(session, code)
    assert printed(run) == '[["batch"], ["ToolNotFound"], [], []]\n', run.envelope
    assert (await gateway.desk.get(ANNA, asked.id)).state == "pending"
    assert await total(gateway, "attack") == 0
    await gateway.sessions.end(session)


async def _killed_in_between(gateway: Gateway) -> None:
    """As a gateway leaves things that is killed while it runs a cell again: after the effect, before or after the
    journal has it. The next look takes the cell up, and nothing is done twice."""
    session = await _session(gateway)
    run = await gateway.sessions.run_cell(session, f"{PAY}print(pay(name='killed', amount=4)['total'])")
    id = (await pending(gateway, session)).id
    await gateway.desk.approve(ANNA, id)
    await resumed(gateway, id)
    for call in ("state = 'executing', result = NULL", "state = state"):
        await gateway.database.execute(f"UPDATE call SET {call} WHERE session = %s", (session,))
        await gateway.database.execute("UPDATE cell SET status = 'paused' WHERE id = %s", (run.cell,))
        await gateway.database.execute(
            "UPDATE approval SET resumed = NULL, claimed_by = 'dead', claimed_until = now() + interval '0.3 seconds'"
            " WHERE id = %s",
            (id,),
        )
        await resumed(gateway, id)
        node = await settled(gateway, session, run.cell)
        assert node["outputs"][0]["text"] == "4\n"
        assert await total(gateway, "killed") == 4
    await gateway.sessions.end(session)


async def _approved_while_no_gateway_runs(url: str, clock: Clock, id: str) -> None:
    database = Database(url, DatabaseSettings(pool_size=2))
    await database.open()
    desk = Desk(ApprovalRows(database), ApprovalSettings(), decided=lambda _: None, clock=clock)
    await desk.approve(ANNA, id)
    await database.close()


async def _left_behind(gateway: Gateway) -> tuple[str, str, str]:
    """Still paused when its gateway stops."""
    session = await _session(gateway)
    await gateway.sessions.run_cell(session, "y = 3")
    run = await gateway.sessions.run_cell(session, f"{PAY}print(pay(name='left', amount=y)['total'])")
    return session, run.cell, (await pending(gateway, session)).id


async def _twice_at_once(one: Gateway, other: Gateway) -> None:
    """Two gateways are told at once: one of them decides, one runs the cell, and the write is made once."""
    session = await _session(one)
    run = await one.sessions.run_cell(session, f"{PAY}pay(name='twice', amount=2)")
    id = (await pending(one, session)).id
    said = await asyncio.gather(one.desk.approve(ANNA, id), other.desk.approve(ANNA, id), return_exceptions=True)
    assert sorted(type(each).__name__ for each in said) == ["Approval", "TooLate"]
    await settled(one, session, run.cell)
    await resumed(one, id)
    assert await total(one, "twice") == 2


async def _taken_up(gateway: Gateway, session: str, cell: str, id: str) -> None:
    """A later gateway restores the session, and runs the cell that was approved meanwhile."""
    await resumed(gateway, id)
    node = await settled(gateway, session, cell)
    assert node["outputs"][0]["text"] == "3\n"
    assert await total(gateway, "left") == 3
