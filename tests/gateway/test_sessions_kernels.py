"""Sessions on real kernels: one cell at a time, deadlines, death and restoring, tenants, transcripts."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from gateway_world import notebook_of, own_database, settings_for

from gateway.runtime import Gateway, open_gateway
from gateway.session_errors import BadCell, SessionBusy, SessionEnded, SessionLost, SessionNotFound
from gateway.sessions import Sessions
from gateway.start_error import StartError
from gateway.transcripts.notebook import Said
from gateway.types import Event
from kernel_pool.types import ExitReason

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    with own_database(postgres) as url:
        async with open_gateway(settings_for(tmp_path_factory.mktemp("data"), url)) as gateway:
            yield gateway


@pytest.fixture
def sessions(gateway: Gateway) -> Sessions:
    return gateway.sessions


@pytest_asyncio.fixture(loop_scope="module")
async def session(sessions: Sessions) -> AsyncIterator[str]:
    info = await sessions.create("shop", "test", "analyst")
    yield info.id
    await sessions.end(info.id)


def kill(sessions: Sessions, session: str) -> None:
    kernel = sessions.kernel(session)
    assert kernel is not None
    os.kill(kernel.pid, signal.SIGKILL)


async def test_state_stays_from_cell_to_cell(sessions: Sessions, session: str) -> None:
    await sessions.run_cell(session, "x = 20")
    run = await sessions.run_cell(session, "x + 1")
    assert (run.index, run.result.status) == (2, "ok")
    assert "value:  21" in run.envelope


async def test_variables_are_told_after_an_error_too(sessions: Sessions, session: str) -> None:
    run = await sessions.run_cell(session, "found = [1, 2]\n1 / 0")
    assert "+ found list[int](2)" in run.envelope
    assert "ZeroDivisionError: division by zero\n        line 2: 1 / 0" in run.envelope


async def test_cells_of_a_session_run_one_after_the_other(sessions: Sessions, session: str) -> None:
    first = asyncio.create_task(sessions.run_cell(session, "import time; time.sleep(0.3); order = ['first']"))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(sessions.run_cell(session, "order.append('second'); order"))
    assert "['first', 'second']" in (await second).envelope
    assert first.done()


async def test_more_cells_than_may_wait_are_refused(sessions: Sessions, session: str) -> None:
    tasks = [asyncio.create_task(sessions.run_cell(session, "import time; time.sleep(0.05)")) for _ in range(20)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in results].count("CellRun") == 17
    assert isinstance(results[-1], SessionBusy)


async def test_output_is_told_while_the_cell_runs(sessions: Sessions, session: str) -> None:
    seen = asyncio.Event()
    texts: list[str] = []

    async def sink(event: Event) -> None:
        texts.append(event.data["text"])
        if "early" in event.data["text"]:
            seen.set()

    code = "import time\nprint('early', flush=True)\nwhile not stop: time.sleep(0.01)"
    await sessions.run_cell(session, "stop = False")
    running = asyncio.create_task(sessions.run_cell(session, code, sink=sink))
    await asyncio.wait_for(seen.wait(), 10)
    assert not running.done()
    await sessions.interrupt(session)
    assert (await running).result.status == "interrupted"
    assert "early" in texts[0]


async def test_a_cell_past_its_deadline_is_interrupted_and_the_state_stays(sessions: Sessions, session: str) -> None:
    run = await sessions.run_cell(session, "y = 1\nimport time\ntime.sleep(30)", deadline_s=0.3)
    assert run.result.status == "interrupted"
    assert "reason: the cell ran longer than its 0.3 s" in run.envelope
    assert "value:  1" in (await sessions.run_cell(session, "y")).envelope


STUBBORN = """
import time
while True:
    try:
        time.sleep(30)
    except KeyboardInterrupt:
        pass
"""


async def test_a_cell_that_does_not_stop_costs_the_state_until_it_is_restored(sessions: Sessions, session: str) -> None:
    await sessions.run_cell(session, "kept = [1, 2, 3]")
    await sessions.run_cell(session, "half = 'made before the error'\n1 / 0")
    run = await sessions.run_cell(session, STUBBORN, deadline_s=0.2)
    assert run.result.status == "dead"
    assert run.result.exit is not None
    assert run.result.exit.reason is ExitReason.DEADLINE
    assert "state:  lost" in run.envelope
    info = await sessions.get(session)
    assert (info.state, "did not stop" in info.reason) == ("lost", True)
    with pytest.raises(SessionLost, match="did not stop"):
        await sessions.run_cell(session, "kept")
    assert [run.result.status for run in await sessions.restore(session)] == ["ok", "error"]
    assert (await sessions.get(session)).state == "live"
    assert "([1, 2, 3], 'made before the error')" in (await sessions.run_cell(session, "kept, half")).envelope


async def test_a_cell_that_is_about_to_begin_can_be_interrupted(sessions: Sessions) -> None:
    session = (await sessions.create("shop", "test", "analyst", kernel=False)).id
    running = asyncio.create_task(sessions.run_cell(session, "import time; time.sleep(15)"))
    await asyncio.sleep(0)
    async with asyncio.timeout(12):  # less than the cell takes
        while not await sessions.interrupt(session):  # it may not have begun within the second that a try takes
            pass
    assert (await running).result.status == "interrupted"
    assert not await sessions.interrupt(session)
    await sessions.end(session)


async def test_a_kernel_that_dies_between_cells_is_noticed(sessions: Sessions, session: str) -> None:
    await sessions.run_cell(session, "x = 1")
    kernel = sessions.kernel(session)
    assert kernel is not None
    kill(sessions, session)
    await kernel.exited
    assert (await sessions.get(session)).state == "lost"
    with pytest.raises(SessionLost, match="SIGKILL"):
        await sessions.run_cell(session, "x")


async def test_the_rest_of_the_queue_is_told_that_the_state_is_lost(sessions: Sessions, session: str) -> None:
    running = asyncio.create_task(sessions.run_cell(session, "import time; time.sleep(30)"))
    await asyncio.sleep(0.2)
    waiting = asyncio.create_task(sessions.run_cell(session, "1"))
    await asyncio.sleep(0)
    kill(sessions, session)
    assert (await running).result.status == "dead"
    with pytest.raises(SessionLost):
        await waiting


async def test_a_caller_that_goes_away_does_not_end_its_cell(
    gateway: Gateway, sessions: Sessions, session: str
) -> None:
    caller = asyncio.create_task(sessions.run_cell(session, "import time; time.sleep(0.5); z = 5", cell_id="left"))
    await asyncio.sleep(0.1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert "value:  5" in (await sessions.run_cell(session, "z")).envelope
    assert "left" in [cell.id for cell in notebook_of(gateway.data_dir.path, session).cells]


async def test_a_cell_runs_again_by_its_id_in_its_place(gateway: Gateway, sessions: Sessions, session: str) -> None:
    await sessions.run_cell(session, "n = 0")
    first = await sessions.run_cell(session, "n += 1; n", cell_id="count")
    again = await sessions.run_cell(session, "n += 1; n", cell_id="count")
    assert (first.index, again.index) == (2, 2)
    cells = notebook_of(gateway.data_dir.path, session).cells
    assert [cell.id for cell in cells][1:] == ["count"]
    assert len(cells[1].metadata.omniops.earlier_runs) == 1


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("1", {"cell_id": "../../x"}),
        ("1", {"cell_id": ""}),
        ("1", {"cell_id": "x" * 65}),
        ("a\0b", {}),
        ("#" * (257 * 1024), {}),
        ("1", {"deadline_s": 1e9}),
        ("1", {"deadline_s": 0.0}),
        ("2", {"cell_id": "taken"}),
    ],
    ids=["path", "no id", "long id", "NUL", "size", "deadline", "no deadline", "other code"],
)
async def test_what_cannot_be_a_cell_is_refused(sessions: Sessions, session: str, code: str, options: dict) -> None:
    await sessions.run_cell(session, "1", cell_id="taken")
    with pytest.raises(BadCell):
        await sessions.run_cell(session, code, **options)


async def test_a_session_of_another_tenant_is_not_found(sessions: Sessions, session: str) -> None:
    assert (await sessions.get(session, "shop")).id == session
    with pytest.raises(SessionNotFound):
        await sessions.get(session, "other")
    assert session in [info.id for info in await sessions.list("shop")]
    assert session not in [info.id for info in await sessions.list("other")]


async def test_an_ended_session_takes_nothing_and_its_running_cell_ends(sessions: Sessions) -> None:
    session = (await sessions.create("shop", "test", "analyst")).id
    running = asyncio.create_task(sessions.run_cell(session, "import time; time.sleep(30)"))
    await asyncio.sleep(0.2)
    waiting = asyncio.create_task(sessions.run_cell(session, "1"))
    await asyncio.sleep(0)
    await sessions.end(session)
    await sessions.end(session)
    assert (await running).result.status == "dead"
    with pytest.raises(SessionEnded):
        await waiting
    with pytest.raises(SessionEnded):
        await sessions.run_cell(session, "1")
    assert (await sessions.get(session)).state == "ended"


async def test_an_idle_session_gives_its_kernel_back(sessions: Sessions, session: str) -> None:
    await sessions.run_cell(session, "x = 7")
    kernel = sessions.kernel(session)
    assert kernel is not None
    reaper = asyncio.create_task(sessions.care.reap(0.1))
    await asyncio.wait_for(asyncio.shield(kernel.exited), 10)
    reaper.cancel()
    await asyncio.wait([reaper])
    await sessions.restore(session)
    assert "value:  7" in (await sessions.run_cell(session, "x")).envelope


async def test_secrets_are_struck_out_of_envelope_and_transcript(
    gateway: Gateway, sessions: Sessions, session: str
) -> None:
    secret = gateway.settings.openai_api_key.get_secret_value()
    run = await sessions.run_cell(session, f"print('{secret}', '{gateway.token}')")
    await sessions.record(session, Said("m", "customer", secret, run.result.started))
    text = str(notebook_of(gateway.data_dir.path, session))
    assert "[secret]" in run.envelope
    for hidden in (secret, gateway.token):
        assert hidden not in run.envelope
        assert hidden not in text


async def test_another_gateway_goes_on_with_the_session(postgres: str, tmp_path: Path) -> None:
    with own_database(postgres) as url, tempfile.TemporaryDirectory(prefix="omniops-test-") as short:
        settings = settings_for(tmp_path, url, runtime_dir=Path(short) / "run")
        async with open_gateway(settings) as first:
            session = (await first.sessions.create("shop", "test", "analyst")).id
            await first.sessions.run_cell(session, "x = [1, 2]", cell_id="a")
            with pytest.raises(StartError, match="runs on the data folder"):
                async with open_gateway(settings):
                    pass
        async with open_gateway(settings) as second:
            assert (await second.sessions.get(session)).reason == "the gateway was restarted"
            with pytest.raises(SessionLost, match="restarted"):
                await second.sessions.run_cell(session, "x")
            await second.sessions.restore(session)
            run = await second.sessions.run_cell(session, "x")
            assert (run.index, "[1, 2]" in run.envelope) == (2, True)
        assert [cell.id for cell in notebook_of(tmp_path, session).cells] == ["a", run.cell]
        assert os.listdir(short) == []


async def test_the_same_cell_while_it_runs_is_joined_with_its_output_from_the_first_on(
    sessions: Sessions, session: str
) -> None:
    code = "print('early', flush=True)\nimport time; time.sleep(1)\nn = globals().get('n', 0) + 1; n"
    heard: list[str] = []

    async def sink(event: Event) -> None:
        heard.append(event.data["text"])

    first = asyncio.create_task(sessions.run_cell(session, code, cell_id="joined"))
    await asyncio.sleep(0.5)
    row, node = await sessions.cell(session, "joined")
    assert (row.status, node) == ("running", None)
    with pytest.raises(BadCell, match="runs with other code"):
        await sessions.run_cell(session, "other", cell_id="joined")
    second = await sessions.run_cell(session, code, cell_id="joined", sink=sink)
    assert second is await first
    assert heard[0].startswith("early")
    assert "value:  1" in (await sessions.run_cell(session, "n")).envelope
