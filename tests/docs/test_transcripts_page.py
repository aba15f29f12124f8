"""The page on transcripts: its commands run, its line is a line, its routes and settings are there."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from own_database import own_database
from served_gateway import ServedGateway, environment, served
from typer.testing import CliRunner

from gateway.cli import app
from gateway.settings import TranscriptSettings
from gateway.transcripts.record import KINDS, Line

PAGE = (Path(__file__).parents[2] / "docs" / "transcripts.md").read_text()

pytestmark = pytest.mark.timeout(300)


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("reader") / ".omniops"
    with own_database(postgres) as url, served(data, environment(url)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def session(gateway: ServedGateway) -> str:
    """One that has ended."""
    with gateway.client() as http:
        id = str(http.post("/v1/sessions", json={"tenant": "shop", "role": "analyst"}).json()["id"])
        for code in ("x = 6", "print(x * 7)", "1 / 0"):
            http.post(f"/v1/sessions/{id}/cells", json={"code": code}).raise_for_status()
        http.delete(f"/v1/sessions/{id}").raise_for_status()
    return id


def test_the_commands_work_in_order(gateway: ServedGateway, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gateway.data_dir.parent)
    told: dict[str, str] = {}
    for line in block("sh").splitlines():
        program, *arguments = shlex.split(line.replace("SESSION", session))
        assert program == ".venv/bin/omniops"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"
        told[arguments[1]] = told.get(arguments[1], "") + done.output
    assert session[:12] in told["list"]
    assert "ZeroDivisionError" in told["show"]
    assert told["verify"].count(" ok ") == 2
    assert told["replay"].count("same") == 3
    assert "No differences in 3 cells" in told["diff"]
    assert "ZeroDivisionError" in (gateway.data_dir.parent / f"{session}.html").read_text()
    assert "the contents of 4 lines are gone" in told["erase"]
    after = CliRunner().invoke(app, ["transcripts", "verify"])
    assert (after.exit_code, "4 of them erased" in after.output) == (0, True)
    assert "ZeroDivisionError" not in CliRunner().invoke(app, ["transcripts", "show", session]).output


def test_the_line_and_the_kinds_are_those_of_the_code() -> None:
    line = msgspec.json.decode(block("json"), type=Line)
    assert (line.kind in KINDS, line.erased) == (True, False)
    named = re.search(r"Kinds are (.*?) and `erasure`", PAGE, re.S)
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[0])) == KINDS


def test_the_routes_are_those_of_the_gateway(gateway: ServedGateway) -> None:
    with httpx.Client() as plain, gateway.client() as http:
        assert plain.get(f"{gateway.url}/v1/transcripts").status_code == 401
        paths = http.get("/v1/openapi.json").json()["paths"]
    for method, path, query in re.findall(r"^\| `(\w+) (/[^?`]+)(?:\?([^`]*))?`", PAGE, re.M):
        operation = paths[path][method.lower()]
        known = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        assert {part.partition("=")[0] for part in query.split("&") if part} <= known


def test_the_settings_are_settings() -> None:
    settings = TranscriptSettings(**tomllib.loads(block("toml"))["transcripts"])
    assert settings.keep_days == 90
    assert TranscriptSettings().keep_days == 0
    assert set(re.findall(r"`\[(\w+)\]`", PAGE)) == set(settings.masked)
