"""Cells that say more than memory is to hold: all of it is in a file beside the record, less what is secret."""

from __future__ import annotations

import hashlib
import os
import random
import resource
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import counting
import httpx
import msgspec
import nbformat
import orjson
import pytest
import pytest_asyncio
from gateway_world import own_database, settings_for

from gateway.app import create_app
from gateway.broker.scrub import Scrubber
from gateway.credentials.known import Secrets
from gateway.routes.models import Cell
from gateway.runtime import Gateway, open_gateway
from gateway.transcripts.output_file import NoRoom, OutputFile, Room, read_outputs
from gateway.transcripts.overflow import Spooling, told
from gateway.transcripts.redaction import Flow, Redaction
from gateway.transcripts.verify import verify
from gateway.types import CellRun
from kernel_pool.types import CellResult
from omniops_client import types as typed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRETS = ("hunter2hunter2", "two\nlines-of-it", "ter2hunter", "aaaaaaab")
KINDS = ("email", "phone", "card", "iban")
TENANTS = {"shop": {"token": "the-shops-own-token"}, "other": {"token": "the-others-own-token"}}
MB = 2**20
#: Numbered lines, and what is the same of them in memory.
PRINTED = "for n in range(30_000): print(n, 'x' * 40)"
ALL = "".join(f"{n} {'x' * 40}\n" for n in range(30_000))


def redaction(*secrets: str) -> Redaction:
    known = Secrets(secrets)
    return Redaction(Scrubber(known).known, KINDS, lambda: known.forms)


def printed(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def cut_anywhere(text: str, draw: random.Random, most: int) -> list[str]:
    pieces = []
    while text:
        size = draw.randint(1, most)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


# -- redacted across borders --


@pytest.mark.parametrize("seed", range(30))
async def test_no_border_hides_a_secret(seed: int) -> None:
    draw = random.Random(seed)
    words = [*SECRETS, "jane.doe@example.com", "4111 1111 1111 1111", "+41 44 668 18 00", "hunter2", "aaaa", "\n", " "]
    text = "".join(draw.choice([*words, "x" * draw.randint(1, 9)]) for _ in range(400))
    for secrets in (SECRETS[:1], SECRETS):
        made = redaction(*secrets)
        flow = Flow(made)
        got = "".join(map(flow.push, cut_anywhere(text, draw, 12))) + flow.end()
        assert not any(secret in got for secret in secrets)
        if secrets is not SECRETS:  # where secrets overlap, which of them goes first is chance
            assert got == made.personal(made.secret(text))


async def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    flow = Flow(redaction("hunter2hunter2"))
    piece = "x" * 70_000 + " jane@example.com "
    got = [flow.push(piece) for _ in range(10)]
    assert all(len(each) > 30_000 for each in got[1:])
    assert flow.pending < 100_000
    assert ("".join(got) + flow.end()).count("[email]") == 10


async def test_the_end_of_what_is_shown_is_no_half_of_a_secret() -> None:
    known = redaction("hunter2hunter2")
    result = CellResult("ok", 1, (printed("a hunter2hun"),), None, counting_start(), counting_start(), cut=1)
    file = OutputFile(None, known, None)
    file.take(printed("a hunter2hunter2 and on"))
    shown, spooled, _ = told(result, file.end(), known)
    assert shown.outputs[0]["text"] == "a "
    assert "hunter" not in str(shown.outputs)
    assert spooled is not None


# -- the file --


def file_of(path: Path, *outputs: Mapping[str, Any], room: Room | None = None) -> OutputFile:
    file = OutputFile(path, redaction(), room)
    file.open()
    for output in outputs:
        file.take(output)
    return file


async def test_the_file_is_the_same_wherever_the_kernel_cut_a_stream(tmp_path: Path) -> None:
    draw, hashes = random.Random(3), set()
    text = "".join(f"line {n}\n" for n in range(30_000))
    display = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    for number in range(4):
        pieces = map(printed, cut_anywhere(text, draw, 50_000))
        path = tmp_path / "t" / "s.outputs" / f"c-{number}.jsonl"
        ended = file_of(path, *pieces, display, printed("end", "stderr")).end()
        hashes.add(ended.spooled.sha256)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == ended.spooled.sha256
        found = list(read_outputs(path))
        assert "".join(each.get("text", "") for each in found) == f"{text}end"
        assert len(found) == ended.spooled.outputs
        assert ended.tail[-1]["text"] == "end"
    assert len(hashes) == 1


async def test_what_is_cleared_is_gone_and_what_comes_after_is_there(tmp_path: Path) -> None:
    path = tmp_path / "t" / "s.outputs" / "c-1.jsonl"
    room = Room(tmp_path, session_mb=1, tenant_mb=1, free_mb=0)
    file = file_of(path, printed("x" * 700_000), room=room)
    file.clear()
    file.take(printed("y" * 700_000))
    file.end()
    assert "".join(each["text"] for each in read_outputs(path)) == "y" * 700_000


@pytest.mark.parametrize("seed", range(8))
async def test_a_file_that_was_left_anywhere_is_gone_on_with(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    known = redaction("hunter2hunter2")
    text = "".join(f"{n} jane.doe@example.com hunter2hunter2\n" for n in range(50_000))
    pieces = cut_anywhere(text, draw, 60_000 if seed % 2 else 9_000)
    whole = OutputFile(None, known, None)
    for piece in pieces:
        whole.take(printed(piece))
    path = tmp_path / "t" / "s.outputs" / "c-1.jsonl"
    left = OutputFile(path, known, None)
    left.open()
    position = 0
    for piece in pieces[: draw.randint(1, len(pieces))]:
        left.take(printed(piece))
        left.mark(position := position + len(orjson.dumps(piece)) - 2)
    # as a kill leaves it: with what came after the mark, and half a line
    with open(path, "ab") as file:
        file.write(b'{"output_type":"str')
    for each in path.parent.iterdir():
        assert b"hunter2h" not in each.read_bytes()
    after = OutputFile(path, known, None)
    written = orjson.dumps(text)[1:-1]
    after.take(printed(orjson.loads(b'"' + written[after.go_on() :] + b'"')))
    assert after.end().spooled.sha256 == whole.end().spooled.sha256
    assert [each.name for each in path.parent.iterdir()] == ["c-1.jsonl"]


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"session_mb": 1}, r"transcripts\.session_mb"),
        ({"tenant_mb": 1}, r"transcripts\.tenant_mb"),
        ({"free_mb": 10**12}, r"transcripts\.free_mb"),
    ],
)
async def test_there_is_an_end_to_it(tmp_path: Path, limits: dict[str, int], why: str) -> None:
    room = Room(tmp_path, **({"session_mb": 100, "tenant_mb": 100, "free_mb": 0} | limits))
    file_of(tmp_path / "t" / "before.outputs" / "c-1.jsonl", printed("x" * 500_000)).end()
    path = tmp_path / "t" / "s.outputs" / "c-1.jsonl"
    file = file_of(path, room=room)
    with pytest.raises(NoRoom, match=why):
        file.take(printed("x" * 2_000_000))
    spooled = file.end_short().spooled
    assert path.stat().st_size == spooled.bytes < MB
    assert all(each["text"].strip("x") == "" for each in read_outputs(path))


async def test_a_full_disk_leaves_whole_lines_and_says_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "t" / "s.outputs" / "c-1.jsonl"
    overflow = Spooling(redaction(), None).cell(path)
    held: list[bool] = []
    overflow.begin(held.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        taken = [overflow.put(printed("x" * 100_000), 100_000, 0) for _ in range(60)]
        result = CellResult("ok", 1, (), None, counting_start(), counting_start(), cut=0, output_bytes=6_000_000)
        ended = await overflow.close(result)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert all(taken)  # nobody could know it then
    assert not overflow.put(printed("more"), 4, 0)
    assert "File too large" in overflow.why
    assert held == [True, False]
    shown, spooled, _ = told(result, ended, redaction())
    assert spooled is not None
    kept = sum(len(each["text"]) for each in read_outputs(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == spooled.sha256
    assert 0 < kept < 300_000
    assert shown.dropped_bytes == spooled.lost >= 6_000_000 - kept - 100_000
    assert "bytes are lost: the cell's output cannot be written: File too large" in shown.outputs[0]["text"]


# -- cells --


def counting_start() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    with own_database(postgres) as url:
        settings = settings_for(
            tmp_path_factory.mktemp("data"),
            url,
            tenants=TENANTS,
            openai_api_key="sk-hunter2hunter2hunter2",
            agent={"everyday_tools": ()},
            cell={"deadline_s": 120, "interrupt_grace_s": 60, "output_mb": 1, "output_flood_mb": 6},
            transcripts={"session_mb": 16, "free_mb": 0},
        )
        async with open_gateway(settings, registry=counting.registry()) as gateway:
            yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def session(gateway: Gateway) -> AsyncIterator[str]:
    session = (await gateway.sessions.create("shop", "test", "agent")).id
    yield session
    await gateway.sessions.end(session)


def texts(run: CellRun) -> str:
    return "".join(each.get("text", "") for each in run.result.outputs)


def file_in(gateway: Gateway, run: CellRun) -> Path:
    assert run.spool is not None
    return gateway.data_dir.transcripts / "shop" / f"{run.session}.outputs" / run.spool.file


async def test_all_of_it_is_in_the_file_and_its_ends_are_shown(gateway: Gateway, session: str) -> None:
    told: list[str] = []

    async def sink(event: Any) -> None:
        told.append(event.data["text"])

    run = await gateway.sessions.run_cell(session, f"{PRINTED}\n1 / 0", sink=sink)
    assert (run.result.status, run.result.dropped_bytes) == ("error", 0)
    found = list(read_outputs(file_in(gateway, run)))
    assert "".join(each["text"] for each in found[:-1]) == ALL
    assert found[-1]["ename"] == "ZeroDivisionError"
    head, notice, tail, error = run.result.outputs
    assert ALL.startswith(head["text"])
    assert len(head["text"]) > MB - 2000
    assert run.spool is not None
    assert run.spool.file in notice["text"]
    told_of = msgspec.convert(Cell.of(run).model_dump(), typed.CellResult)
    assert told_of.spool is not None
    assert (told_of.spool.file, told_of.spool.bytes, told_of.dropped_bytes) == (run.spool.file, run.spool.bytes, 0)
    assert ALL.endswith(tail["text"])
    assert error["ename"] == "ZeroDivisionError"
    assert f"29999 {'x' * 40}" in run.envelope  # its end is seen by the model
    assert "ZeroDivisionError" in run.envelope
    assert f"29999 {'x' * 40}" in "".join(told)
    (cell,) = nbformat.reads(gateway.transcripts.notebook(gateway.transcripts.find(session)), as_version=4).cells
    assert cell.metadata.omniops.spool.sha256 == hashlib.sha256(file_in(gateway, run).read_bytes()).hexdigest()


async def test_what_fits_in_makes_no_file(gateway: Gateway, session: str) -> None:
    run = await gateway.sessions.run_cell(session, "print('x' * 1_000_000)")
    assert (run.spool, texts(run)) == (None, "x" * 1_000_000 + "\n")
    cleared = f"{PRINTED}\nfrom IPython.display import clear_output\nclear_output()\nprint('end')"
    run = await gateway.sessions.run_cell(session, cleared)
    assert (run.spool, texts(run)) == (None, "end\n")
    assert not (gateway.data_dir.transcripts / "shop" / f"{session}.outputs").exists()


async def test_displays_are_in_it_with_their_updates(gateway: Gateway, session: str) -> None:
    code = f"""
from IPython.display import display
shown = display("before", display_id="d")
{PRINTED}
shown.update("after")
display("x" * 100_000)
"value"
"""
    run = await gateway.sessions.run_cell(session, code)
    found = list(read_outputs(file_in(gateway, run)))
    kinds = [each["output_type"] for each in found if each["output_type"] != "stream"]
    assert kinds == ["display_data", "update_display_data", "display_data", "execute_result"]
    assert found[0]["transient"] == {"display_id": "d"}
    assert run.result.outputs[-1]["data"]["text/plain"] == "'value'"


async def test_secrets_and_personal_data_are_not_in_it(gateway: Gateway, session: str) -> None:
    code = """
import sys
for n in range(200_000):
    sys.stdout.write("sk-hunter2hun"); sys.stdout.flush() if n % 1000 == 0 else None
    sys.stdout.write("ter2hunter2\\n")
print("jane.doe@example.com")
"""
    run = await gateway.sessions.run_cell(session, code)
    assert run.spool is not None
    text = "".join(each["text"] for each in read_outputs(file_in(gateway, run)))
    assert text == "[secret]\n" * 200_000 + "[email]\n"
    assert "hunter" not in orjson.dumps([dict(each) for each in run.result.outputs[1:]]).decode()
    assert "hunter" not in run.envelope


async def test_a_cell_that_says_too_much_is_stopped_with_all_that_it_said_until_then(
    gateway: Gateway, session: str
) -> None:
    run = await gateway.sessions.run_cell(session, "while True: print('x' * 1000)")
    assert run.result.status == "interrupted"
    assert "more than 6 MiB of output" in run.result.reason
    assert 5 * MB < file_in(gateway, run).stat().st_size < 8 * MB
    assert (await verified(gateway, session)).json()["problems"] == []


async def test_a_session_that_says_too_much_is_stopped_and_goes_on_with_less(gateway: Gateway) -> None:
    session = (await gateway.sessions.create("shop", "test", "agent")).id
    codes = [*["for _ in range(5000): print('x' * 1000)"] * 3, "while True: print('x' * 1000)"]
    runs = [await gateway.sessions.run_cell(session, code) for code in codes]
    assert [run.result.status for run in runs] == ["ok", "ok", "ok", "interrupted"]
    last = runs[-1]
    assert "transcripts.session_mb" in last.result.reason
    assert last.spool is not None
    assert last.spool.lost > 0
    assert f"{last.spool.lost:,} bytes are lost" in texts(last)
    assert (await gateway.sessions.run_cell(session, "print(1)")).result.status == "ok"
    assert (await verified(gateway, session)).json()["problems"] == []
    await gateway.sessions.end(session)


def client(gateway: Gateway, token: str | None = None) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token or gateway.token}"}
    transport = httpx.ASGITransport(create_app(gateway))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers)


async def verified(gateway: Gateway, session: str) -> httpx.Response:
    async with client(gateway) as http:
        return await http.get(f"/v1/transcripts/{session}/verification")


async def test_one_changed_byte_of_it_fails(gateway: Gateway, session: str) -> None:
    run = await gateway.sessions.run_cell(session, PRINTED)
    path, draw = file_in(gateway, run), random.Random(4)
    whole = path.read_bytes()
    assert verify(gateway.transcripts.find(session), None, compare=False).ok
    for offset in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(20))]:
        changed = bytearray(whole)
        changed[offset] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        found = verify(gateway.transcripts.find(session), None, compare=False)
        assert [found.ok, "were changed" in found.problems[0]] == [False, True]
    for other in (whole[:-1], whole + b"\n", b""):
        path.write_bytes(other)
        assert not verify(gateway.transcripts.find(session), None, compare=False).ok
    path.unlink()
    assert "are gone" in (await verified(gateway, session)).json()["problems"][0]
    path.symlink_to("/etc/passwd")
    assert not (await verified(gateway, session)).json()["ok"]
    path.unlink()
    path.write_bytes(whole)
    assert (await verified(gateway, session)).json()["ok"]


async def test_it_is_read_in_parts_by_its_tenant_and_by_nobody_else(gateway: Gateway, session: str) -> None:
    run = await gateway.sessions.run_cell(session, PRINTED)
    whole = file_in(gateway, run).read_bytes()
    url = f"/v1/transcripts/{session}/outputs/{file_in(gateway, run).name}"
    async with client(gateway, "the-shops-own-token") as http:
        answer = await http.get(url)
        assert (answer.status_code, answer.content == whole) == (200, True)
        part = await http.get(url, headers={"range": "bytes=100-299"})
        assert (part.status_code, part.content) == (206, whole[100:300])
        assert part.headers["content-range"] == f"bytes 100-299/{len(whole)}"
        assert (await http.get(url, headers={"range": "bytes=-7"})).content == whole[-7:]
        assert (await http.get(url, headers={"range": f"bytes={len(whole)}-"})).status_code == 416
        assert "attachment" in answer.headers["content-disposition"]
        for name in ("..%2F..%2Fsecrets.jsonl", "../x.jsonl", ".hidden.jsonl", "none.jsonl", f"..%2F{session}.jsonl"):
            assert (await http.get(f"/v1/transcripts/{session}/outputs/{name}")).status_code == 404
        file_in(gateway, run).with_name("link.jsonl").symlink_to("/etc/passwd")
        assert (await http.get(f"/v1/transcripts/{session}/outputs/link.jsonl")).status_code == 404
    async with client(gateway, "the-others-own-token") as http:
        refused = await http.get(url)
        assert (refused.status_code, b"xxxx" in refused.content) == (404, False)
    async with client(gateway, "nobodys-token") as http:
        assert (await http.get(url)).status_code == 401
    os.unlink(file_in(gateway, run).with_name("link.jsonl"))


async def test_a_replay_compares_all_of_it(gateway: Gateway, session: str) -> None:
    await gateway.sessions.run_cell(session, f"import os\n{PRINTED}")
    await gateway.sessions.run_cell(session, f"{PRINTED}\nprint(os.urandom(4).hex())\n{PRINTED}")
    async with client(gateway) as http:
        found = (await http.post(f"/v1/transcripts/{session}/replay")).raise_for_status().json()
    assert [(cell["same"], cell["what"]) for cell in found["cells"]] == [(True, []), (False, ["outputs"])]


async def test_an_erased_session_has_none_of_it(gateway: Gateway, session: str) -> None:
    run = await gateway.sessions.run_cell(session, PRINTED)
    folder = file_in(gateway, run).parent
    assert folder.exists()
    await gateway.sessions.end(session)
    await gateway.eraser.erase(session, "asked for", "test")
    assert not folder.exists()
    assert (await verified(gateway, session)).json()["problems"] == []
