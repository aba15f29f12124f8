"""The gateway is killed (SIGKILL) wherever a cell can be; the next one goes on with its sessions as if nothing were."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from doomed_gateway import POINTS
from gateway_world import notebook_of
from survival_world import SLOW, Doomed, World, begin, cell_of, check, processes_of, survival_world, text_of

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def world(postgres: str, tmp_path: Path) -> Iterator[World]:
    with survival_world(postgres, tmp_path) as made:
        yield made


#: Four lists of places to die; each takes one last gateway.
CHAINS = [[(point, number) for point in list(POINTS)[first::4] for number in POINTS[point]] for first in range(4)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chain", CHAINS, ids=[", ".join(dict(chain)) for chain in CHAINS])
def test_a_cell_goes_on_wherever_its_gateway_is_killed(world: World, chain: list[tuple[str, int]]) -> None:
    """One gateway after the other is killed, each elsewhere, with a session of its own; all sessions go on."""
    sessions: list[str] = []
    for thing, (point, number) in enumerate(chain):
        with world.gateway(point, number) as gateway:
            if sessions:
                gateway.ended_cell(sessions[-1], "doomed")
            sessions.append(gateway.create())
            gateway.run(sessions[-1], "kept = 41")
            lost = begin(gateway, sessions[-1], cell_of(thing))
            assert gateway.process.wait(120) == -9, (point, number)
            lost.join()
    with world.gateway() as last:
        assert len(processes_of(world.runtime, world.uids)) > len(sessions)  # so it would be seen what is left
        for thing, (session, (point, _)) in enumerate(zip(sessions, chain, strict=True)):
            assert last.session(session)["state"] == "live", point
            if point == "before its row":  # it was never begun: nobody runs it but its client
                with last.http() as http:
                    assert http.get(f"/v1/sessions/{session}/cells/doomed").status_code == 404
                last.run(session, cell_of(thing), cell_id="doomed")
            check(world, last, session, thing)
            with last.http() as http:
                assert http.delete(f"/v1/sessions/{session}").status_code == 204
        assert world.kernels() == []
    assert world.left_over() == []


def test_two_restarts_in_a_row_and_an_idle_and_a_queued_cell(world: World) -> None:
    with world.gateway() as first:
        session, idle = first.create(), first.create()
        first.run(session, "kept = 41")
        first.run(idle, "x = 'idle'")
        slow = begin(first, session, SLOW, "slow")
        time.sleep(1)
        queued = begin(first, session, "queued = True", "queued")
        time.sleep(0.5)
        first.process.kill()
        first.process.wait()
        slow.join()
        queued.join()
    with world.gateway() as second:
        assert [cell["status"] for cell in second.http().get(f"/v1/sessions/{session}/cells").json()] == [
            "ok",
            "running",
        ]
        # asked for again while it runs, it is joined, not run twice
        joined = begin(second, session, SLOW, "slow")
        time.sleep(0.5)
        second.process.kill()
        second.process.wait()
        joined.join()
    with world.gateway() as third:
        found = third.ended_cell(session, "slow")
        assert found["status"] == "ok"
        assert text_of(found["result"]["outputs"]) == "".join(f"{i}\n" for i in range(60))
        assert "NameError" in third.run(session, "queued")["envelope"]
        assert "value:  41" in third.run(session, "kept")["envelope"]
        assert "value:  'idle'" in third.run(idle, "x")["envelope"]
        assert [cell.id for cell in notebook_of(world.data, session).cells].count("slow") == 1
    assert world.left_over() == []


def test_a_session_that_was_ended_or_never_known_leaves_no_kernel(world: World) -> None:
    with world.gateway() as first:
        gone, unknown = first.create(), first.create()
        first.process.kill()
        first.process.wait()
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        connection.execute("UPDATE session SET state = 'ended', ended = now() WHERE id = %s", (gone,))
        connection.execute("DELETE FROM session WHERE id = %s", (unknown,))
    with world.gateway() as second, second.http() as http:
        assert http.get("/v1/status").json()["pool"]["leased"] == 0
        assert second.session(gone)["state"] == "ended"
    assert world.left_over() == []


def test_a_session_killed_while_it_was_restored_is_lost_and_restorable(world: World) -> None:
    with world.gateway() as first:
        session = first.create()
        first.run(session, "kept = 41")
        first.run(session, "import time; time.sleep(3)")
        with psycopg.connect(world.database_url, autocommit=True) as connection:
            restoring = threading.Thread(target=_restore, args=(first, session))
            restoring.start()
            while connection.execute("SELECT state FROM session WHERE id = %s", (session,)).fetchone() != ("lost",):
                time.sleep(0.02)
        time.sleep(1)
        first.process.kill()
        first.process.wait()
        restoring.join()
    with world.gateway() as second:
        found = second.session(session)
        assert (found["state"], found["reason"]) == ("lost", "restoring it did not come to an end")
        _restore(second, session)
        assert "value:  41" in second.run(session, "kept")["envelope"]
    assert world.left_over() == []


def _restore(gateway: Doomed, session: str) -> None:
    try:
        with gateway.http() as http:
            http.post(f"/v1/sessions/{session}/restore")
    except httpx.HTTPError:
        return


@pytest.mark.skipif(os.getuid() != 0, reason="kernels are told apart by their users, which only root can give them")
def test_a_kernel_that_dies_while_no_gateway_is_there_is_lost_for_its_true_reason(world: World) -> None:
    with world.gateway() as first:
        session, idle = first.create(), first.create()
        first.run(session, "kept = 41")
        first.run(idle, "x = 'idle'")
        lost = begin(first, session, SLOW, "slow")
        time.sleep(2)
        first.process.kill()
        first.process.wait()
        lost.join()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid in world.uids:
                os.kill(int(process.name), signal.SIGKILL)
    with world.gateway() as second:
        found = second.ended_cell(session, "slow")
        assert found["status"] == "dead"
        for each in (session, idle):
            known = second.session(each)
            assert (known["state"], "SIGKILL" in known["reason"]) == ("lost", True), known
            _restore(second, each)
        assert "value:  41" in second.run(session, "kept")["envelope"]
        assert "value:  'idle'" in second.run(idle, "x")["envelope"]
    assert world.left_over() == []
