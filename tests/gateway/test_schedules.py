"""What is due is run, once among several gateways, and what was not is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import counting
import httpx
import nbformat
import pytest
from gateway_world import own_database, settings_for
from pydantic import ValidationError

from gateway.app import create_app
from gateway.db import Database
from gateway.runtime import open_gateway
from gateway.schedules.keeper import Schedules
from gateway.schedules.rows import ScheduleRows
from gateway.schedules.times import due_between
from gateway.schedules.work import Began, NotRunnable, cells_of
from gateway.settings import ScheduleSettings, SchedulingSettings

NOON = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)


def hourly(**more: Any) -> ScheduleSettings:
    return ScheduleSettings(name="hourly", cron="0 * * * *", **({"tool": "lab.count"} | more))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Office:
    """Two gateways on one database, and what they were told to run."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock()
        self.ran: list[tuple[str, str]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def gateway(self, id: str, schedules: Sequence[ScheduleSettings] = (hourly(),)) -> Schedules:
        await self.database.execute(
            "INSERT INTO gateway (id, alive_until) VALUES (%s, now() + interval '1 hour') ON CONFLICT DO NOTHING", (id,)
        )

        async def run(tenant: str, schedule: ScheduleSettings, began: Began) -> str:
            self.ran.append((id, schedule.name))
            await began(f"session-of-{id}")
            await self.hold.wait()
            if schedule.arguments.get("fails"):
                raise RuntimeError("no kernel")
            return "ok"

        made = Schedules(
            ScheduleRows(self.database),
            SchedulingSettings(),
            {"shop": schedules},
            gateway=id,
            run=run,
            clock=self.clock,
        )
        await made.look()
        return made

    async def states(self, of: Schedules) -> list[tuple[int, str]]:
        """Hour and state, the latest first."""
        return [(run.due.astimezone(UTC).hour, run.state) for run in await of.runs("shop", 100)]


@pytest.fixture
async def office(database: Database) -> Office:
    return Office(database)


async def test_a_due_time_is_run_once_among_gateways(office: Office) -> None:
    gateways = [await office.gateway(id) for id in ("one", "two")]
    assert office.ran == []  # what was due before it was known is nobody's
    office.clock.now += timedelta(hours=1)
    await asyncio.gather(*(each.look() for each in gateways))
    await asyncio.gather(*(each.settled() for each in gateways))
    assert len(office.ran) == 1
    [run] = await gateways[0].runs(None, 10)
    assert (run.state, run.session) == ("ok", f"session-of-{office.ran[0][0]}")
    await gateways[1].look()
    assert len(office.ran) == 1


async def test_what_nobody_ran_is_missed_and_not_caught_up_with(office: Office) -> None:
    await office.gateway("one")
    office.clock.now += timedelta(hours=3)
    later = await office.gateway("two")
    await later.settled()
    assert await office.states(later) == [(15, "ok"), (14, "missed"), (13, "missed")]


async def test_one_that_still_runs_is_not_begun_again(office: Office) -> None:
    office.hold.clear()
    gateway, other = [await office.gateway(id) for id in ("one", "two")]
    office.clock.now += timedelta(hours=1)
    await gateway.look()
    office.clock.now += timedelta(hours=1)
    await other.look()
    office.hold.set()
    await gateway.settled()
    assert await office.states(gateway) == [(14, "skipped"), (13, "ok")]


async def test_a_gateway_that_is_killed_loses_its_run_and_another_goes_on(office: Office) -> None:
    office.hold.clear()
    gateway = await office.gateway("one")
    office.clock.now += timedelta(hours=1)
    await gateway.look()
    await office.database.execute("UPDATE gateway SET alive_until = now() - interval '1 minute' WHERE id = 'one'")
    other = await office.gateway("two")
    assert await office.states(other) == [(13, "lost")]
    office.clock.now += timedelta(hours=1)
    office.hold.set()
    await other.look()
    await other.settled()
    assert (14, "ok") in await office.states(other)
    await gateway.close()


async def test_one_that_fails_or_is_stopped_says_so(office: Office) -> None:
    gateway = await office.gateway("one", [hourly(arguments={"fails": True})])
    office.clock.now += timedelta(hours=1)
    await gateway.look()
    await gateway.settled()
    office.hold.clear()
    office.clock.now += timedelta(hours=1)
    await gateway.look()
    while len(office.ran) < 2:
        await asyncio.sleep(0.01)
    await gateway.close()
    assert await office.states(gateway) == [(14, "stopped"), (13, "failed")]


async def test_with_another_rule_it_counts_from_then_on(office: Office) -> None:
    await office.gateway("one")
    office.clock.now += timedelta(hours=5)
    changed = hourly().model_copy(update={"cron": "30 * * * *"})
    gateway = await office.gateway("one", [changed])
    assert await office.states(gateway) == []
    assert gateway.upcoming("shop")[0].due == datetime(2026, 3, 2, 17, 30, tzinfo=UTC)
    assert gateway.upcoming("other") == []


@pytest.mark.parametrize(
    ("cron", "day", "expected"),
    [
        ("30 2 * * *", datetime(2026, 3, 29, tzinfo=UTC), ["01:00"]),  # 02:30 is left out: at 03:00, which is 01:00 UTC
        ("30 2 * * *", datetime(2026, 10, 25, tzinfo=UTC), ["00:30"]),  # 02:30 comes twice: the first
        ("0 8 * * *", datetime(2026, 7, 1, tzinfo=UTC), ["06:00"]),
    ],
)
def test_times_are_those_of_the_zones_clocks(cron: str, day: datetime, expected: list[str]) -> None:
    start = day - timedelta(hours=2)
    found = due_between(cron, "Europe/Berlin", start, start + timedelta(hours=24), 10)
    assert [f"{moment:%H:%M}" for moment in found] == expected


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cron": "every day"}, "no time of cron"),
        ({"cron": "0 0 31 2 *"}, "no time of cron"),
        ({"zone": "Mars/Olympus"}, "no time zone"),
        ({"zone": "../../etc/passwd"}, "no time zone"),
        ({"notebook": "x.ipynb"}, "one of them"),
        ({"tool": None}, "one of them"),
        ({"arguments": {"a b": 1}}, "named like variables"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ScheduleSettings(**({"name": "x", "cron": "0 * * * *", "tool": "lab.count"} | wrong))


def test_a_notebook_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.ipynb").write_text("{")
    for name in ("missing.ipynb", "broken.ipynb"):
        with pytest.raises(NotRunnable, match=name):
            cells_of(hourly(tool=None, notebook=tmp_path / name))


async def test_for_real_a_tool_and_a_notebook_each_in_a_session_with_its_transcript(
    postgres: str, tmp_path: Path
) -> None:
    notebook: Any = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    new: Callable[[str], Any] = nbformat.v4.new_code_cell
    notebook.cells = [new("weeks = 1"), new("print('weeks', weeks)"), new("1 / 0"), new("print('not reached')")]
    nbformat.write(notebook, tmp_path / "report.ipynb")  # type: ignore[no-untyped-call]
    report = {"name": "report", "cron": "0 0 1 1 *", "notebook": tmp_path / "report.ipynb", "arguments": {"weeks": 4}}
    add = {"name": "add", "cron": "0 0 1 1 *", "tool": "counting.add", "arguments": {"name": "x"}}
    with own_database(postgres) as url:
        settings = settings_for(
            tmp_path / "data",
            url,
            tenants={"shop": {"token": "the-shops-token-0123456789", "schedules": [report, add]}},
            agent={"everyday_tools": ()},
            scheduling={"enabled": False},
        )
        async with open_gateway(settings, registry=counting.registry()) as gateway:
            await gateway.database.execute(counting.UPSTREAM)
            schedules = gateway.schedules
            schedules._clock = lambda: datetime(2026, 12, 31, tzinfo=UTC)
            await schedules.look()
            schedules._clock = lambda: datetime(2027, 1, 1, 0, 1, tzinfo=UTC)
            await schedules.look()
            await schedules.settled()
            transport = httpx.ASGITransport(create_app(gateway))
            headers = {"authorization": "Bearer the-shops-token-0123456789"}
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as http:
                found = (await http.get("/v1/schedules")).json()
                runs = {each["name"]: each for each in found["runs"]}
                assert {name: run["state"] for name, run in runs.items()} == {"report": "error", "add": "ok"}
                assert [each["what"] for each in found["schedules"]] == ["report.ipynb", "counting.add"]
                assert (await http.get("/v1/schedules", params={"tenant": "other"})).status_code == 403
            await gateway.upkeep.close()
            path = next(gateway.data_dir.transcripts.rglob(f"{runs['report']['session']}.ipynb"))
            text = path.read_text()
            assert "weeks 4" in text
            assert "ZeroDivisionError" in text
            assert "not reached" not in text
