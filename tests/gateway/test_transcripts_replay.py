"""Sessions replayed in a new kernel: the journal answers, nothing goes out, what differs is told. And erased ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import counting
import httpx
import pytest
import pytest_asyncio
from gateway_world import own_database, settings_for

from gateway.app import create_app
from gateway.runtime import Gateway, open_gateway
from gateway.transcripts.errors import RecordDamaged
from gateway.transcripts.replay import Replay
from gateway.types import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANTS = {"shop": {"token": "the-shops-own-token"}, "other": {"token": "the-others-own-token"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    with own_database(postgres) as url:
        settings = settings_for(tmp_path_factory.mktemp("data"), url, tenants=TENANTS, agent={"everyday_tools": ()})
        async with open_gateway(settings, registry=counting.registry()) as gateway:
            await gateway.database.execute(counting.UPSTREAM)
            yield gateway


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def no_session_is_left(gateway: Gateway) -> AsyncIterator[None]:
    yield
    for session in gateway.sessions.here:
        await gateway.sessions.end(session)


async def session_with(gateway: Gateway, *cells: str, role: Role = "agent") -> str:
    session = (await gateway.sessions.create("shop", "test", role)).id
    for number, code in enumerate(cells):
        await gateway.sessions.run_cell(session, code, cell_id=f"c{number}")
    return session


async def replayed(gateway: Gateway, session: str) -> Replay:
    info = await gateway.sessions.get(session)
    store = gateway.transcripts
    cells = store.cells(store.find(session))
    return await gateway.replayer.replay(info, {cell["id"]: cell for cell in cells})


async def effects(gateway: Gateway) -> tuple[int, int, int]:
    counts = "SELECT (SELECT count(*) FROM effect) AS e, (SELECT count(*) FROM look) AS l, count(*) AS c FROM call"
    [row] = await gateway.database.fetch(counts)
    return row["e"], row["l"], row["c"]


async def test_a_replay_comes_to_the_same_and_changes_nothing(gateway: Gateway) -> None:
    session = await session_with(
        gateway,
        "from servers.counting import add, look\nx = add(name='a', amount=2)['total']\nprint(x)",
        "print(x + look(name='a')['total'])\nx",
        "add(name='a', amount=2), add(name='a', amount=2)",
        "1 / 0",
    )
    before = await effects(gateway)
    found = await replayed(gateway, session)
    assert [(cell.cell, cell.what, cell.lines) for cell in found.cells if not cell.same] == []
    assert found.same
    assert [(cell.answered, cell.refused) for cell in found.cells] == [(1, 0), (1, 0), (2, 0), (0, 0)]
    assert await effects(gateway) == before


async def test_what_differs_is_told_by_cell(gateway: Gateway) -> None:
    session = await session_with(gateway, "import os; print(os.urandom(8).hex())", "print('same')")
    found = await replayed(gateway, session)
    assert not found.same
    assert [(cell.same, cell.what) for cell in found.cells] == [(False, ["outputs"]), (True, [])]
    assert any(line.startswith("-") for line in found.cells[0].lines)


async def test_a_call_that_was_not_made_is_not_made_by_a_replay(gateway: Gateway) -> None:
    session = await session_with(
        gateway,
        "import random\nfrom servers.counting import add\n"
        "try:\n    print(add(name='r', amount=random.SystemRandom().randrange(10**9))['name'])\n"
        "except Exception as error:\n    print(type(error).__name__, error)",
    )
    before = await effects(gateway)
    found = await replayed(gateway, session)
    [cell] = found.cells
    assert (cell.same, cell.what, cell.answered, cell.refused) == (False, ["outputs"], 0, 1)
    assert any("not in the journal" in line for line in cell.lines)
    assert await effects(gateway) == before


async def test_a_journal_that_was_changed_shows(gateway: Gateway) -> None:
    session = await session_with(gateway, "from servers.counting import look\nprint(look(name='j'))")
    await gateway.database.execute("UPDATE call SET result = replace(result, '0', '7') WHERE session = %s", (session,))
    found = await replayed(gateway, session)
    assert [(cell.same, cell.what) for cell in found.cells] == [(False, ["outputs"])]


async def test_cells_that_did_not_end_by_themselves_are_said_to_be_missing(gateway: Gateway) -> None:
    session = (await gateway.sessions.create("shop", "test", "analyst")).id
    await gateway.sessions.run_cell(session, "while True: pass", cell_id="loop", deadline_s=0.5)
    found = await replayed(gateway, session)
    assert [(cell.same, cell.what) for cell in found.cells] == [(False, ["it was interrupted"])]


async def test_over_http_it_is_for_those_who_reach_the_session(gateway: Gateway) -> None:
    session = (await gateway.sessions.create("shop", "test", "analyst")).id
    await gateway.sessions.run_cell(session, "print(6 * 7)")
    address = f"/v1/transcripts/{session}/replay"
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as http:
        own, other = ({"authorization": f"Bearer {TENANTS[name]['token']}"} for name in ("shop", "other"))
        assert (await http.post(address, headers=own)).json()["same"]
        assert (await http.post(address, headers=other)).status_code == 404
        operator = await session_with(gateway, "1", role="operator")
        assert (await http.post(f"/v1/transcripts/{operator}/replay", headers=own)).status_code == 403
        record = gateway.transcripts.path("shop", session).with_suffix(".jsonl")
        record.write_bytes(record.read_bytes().replace(b"6 * 7", b"6 * 8", 1))
        answer = await http.post(address, headers=own)
        assert (answer.status_code, answer.json()["code"]) == (409, "transcript_damaged")


PERSONAL = "jo.doe@example.com"


async def everything(gateway: Gateway) -> str:
    """All that files and database hold."""
    rows = [
        await gateway.database.fetch(f"SELECT {table}::text AS text FROM {table}")
        for table in ("session", "cell", "call", "turn", "transcript", "administration", "chat_message")
    ]
    files = [path.read_text() for path in gateway.transcripts.root.rglob("*") if path.is_file()]
    return "\n".join([*(row["text"] for each in rows for row in each), *files])


async def test_an_erased_session_is_gone_and_still_verifies(gateway: Gateway) -> None:
    session = (await gateway.sessions.create("shop", "test", "agent", f"Of {PERSONAL}")).id
    code = f"from servers.counting import add\nprint(add(name='{PERSONAL}', amount=1)['name'])"
    await gateway.sessions.run_cell(session, code)
    await gateway.database.execute(
        "INSERT INTO turn VALUES (%s, 1, 'cells', %s, '', '{}', now(), now())", (session, f'["{PERSONAL}"]')
    )
    await gateway.database.execute(
        "INSERT INTO chat_message VALUES ('shop', %s, 1, now(), now(), true, 'customer', 7, %s)", (session, PERSONAL)
    )
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as http:
        own = {"authorization": f"Bearer {TENANTS['shop']['token']}"}
        server = {"authorization": f"Bearer {gateway.token}"}
        address = f"/v1/transcripts/{session}"
        assert (await http.delete(address, headers=own)).status_code == 403
        assert (await http.delete(address, headers=server)).json()["code"] == "session_open"
        await gateway.sessions.end(session)
        assert (await http.delete(address[:-4], headers=server)).status_code == 404
        assert await everything(gateway) != (await everything(gateway)).replace(PERSONAL, "")
        answer = await http.delete(address, params={"reason": "asked for it", "by": "kim"}, headers=server)
        assert answer.json() == {"session": session, "erased": 2}
        assert PERSONAL not in await everything(gateway)
        found = (await http.get(f"{address}/verification", headers=server)).json()
        assert (found["ok"], found["problems"], found["erased"]) == (True, [], 2)
        acts = (await http.get("/v1/administration", headers=server)).json()["acts"]
        acts = [act for act in acts if act["action"] == "transcript.erase"]
        assert [act["subject"] for act in acts] == [session]
        assert acts[0]["principal"].endswith("kim")
        [listed] = [each for each in (await http.get("/v1/transcripts", headers=server)).json() if each["erased"]]
        assert listed["session"] == session
        page = await http.get(f"{address}/export", headers=server)
        assert "was erased" in page.text


async def test_old_sessions_are_erased_and_others_are_not(gateway: Gateway) -> None:
    old, recent = [(await session_with(gateway, f"print('{name}-words')")) for name in ("old", "recent")]
    for session in (old, recent):
        await gateway.sessions.end(session)
    running = await session_with(gateway, "print('running-words')")
    await gateway.upkeep.flush()
    aged = "UPDATE transcript SET changed = now() - interval '10 days' WHERE session = ANY(%s)"
    await gateway.database.execute(aged, ([old, running],))
    assert await gateway.eraser.look(9) == [old]
    text = await everything(gateway)
    assert [f"{name}-words" in text for name in ("old", "recent", "running")] == [False, True, True]
    assert await gateway.eraser.look(9) == []


async def test_a_damaged_record_is_not_erased_so_that_nobody_sees_it(gateway: Gateway) -> None:
    session = await session_with(gateway, "print(1)")
    await gateway.sessions.end(session)
    await gateway.upkeep.flush()
    record = gateway.transcripts.path("shop", session).with_suffix(".jsonl")
    record.write_bytes(damaged := record.read_bytes().replace(b"print(1)", b"print(2)", 1))
    with pytest.raises(RecordDamaged):
        await gateway.eraser.erase(session, "", "somebody")
    assert record.read_bytes() == damaged
