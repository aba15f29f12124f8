"""The page on one person's data: its commands and its cell run, what it names is there."""

from __future__ import annotations

import json
import re
import shlex
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from own_database import own_database
from served_gateway import ServedGateway, environment, served
from typer.testing import CliRunner

from gateway.cli import app
from gateway.gdpr.registry import TABLES

PAGE = (Path(__file__).parents[2] / "docs" / "gdpr.md").read_text()

pytestmark = pytest.mark.timeout(300)


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("reader") / ".omniops"
    with own_database(postgres) as url:
        more = {"OMNIOPS_TENANTS__ACME__TOKEN": "a-token-of-acmes-own"}
        more["OMNIOPS_PEERS__MIRROR"] = "off"  # as with the embedded database: records are files alone
        more["OMNIOPS_APPROVALS__APPROVERS__ANNA__TOKEN"] = "a-token-of-annas-own"
        with served(data, environment(url, **more)) as made:
            yield made


def approve(gateway: ServedGateway, stop: threading.Event) -> None:
    """As Anna, who looks every now and then."""
    with gateway.client("a-token-of-annas-own") as http:
        while not stop.wait(0.05):
            for each in http.get("/v1/approvals").json():
                if each["state"] == "pending":
                    http.post(f"/v1/approvals/{each['id']}/approve", json={})


def test_the_commands_and_the_cell_work_in_order(gateway: ServedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gateway.data_dir.parent)
    monkeypatch.setenv("COLUMNS", "240")
    with gateway.client() as http:
        id = str(http.post("/v1/sessions", json={"tenant": "acme", "role": "operator"}).json()["id"])
        code = block("python")
        answer = http.post(f"/v1/sessions/{id}/cells", json={"code": code}).raise_for_status()
        assert re.search(r"\d rows at /v1/exports/[0-9a-f]{32}\.", answer.text), answer.text
        http.delete(f"/v1/sessions/{id}").raise_for_status()
    stop = threading.Event()
    anna = threading.Thread(target=approve, args=(gateway, stop))
    anna.start()
    told = []
    try:
        for line in block("sh").splitlines():
            program, *arguments = shlex.split(line)
            assert program == ".venv/bin/omniops"
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"
            told.append(done)
    finally:
        stop.set()
        anna.join()
    exported, listed, erased = told
    with zipfile.ZipFile("bo.zip") as file:
        manifest = json.loads(file.read("manifest.json"))
        found = file.read("transcripts.mentions.ndjson").decode()
    assert manifest["subject"]["emails"] == ["bo@mail.example"]
    assert "bo@mail.example" in found, "the cell before named the person"
    assert {each["name"].partition("/")[0] for each in manifest["files"]} <= set(re.findall(r"`([\w.]+)[`/]", PAGE))
    assert listed.stdout.count("acme") == 2
    report = json.loads(erased.stdout)
    assert report["state"] in ("waiting", "done")  # for its own session, which names the person
    assert "transcripts" in report["removed"]
    link = re.findall(r"http://\S+/v1/exports/\S+", exported.stderr)[0]
    assert httpx.get(link).status_code == 404, "the erasure has removed the file"
    revoked = CliRunner().invoke(app, ["gdpr", "revoke", link.rpartition("/")[2].partition(".")[0]])
    assert revoked.exit_code == 0, revoked.output
    asked = CliRunner().invoke(app, ["gdpr", "erase", "--tenant", "acme", "--email", "bo@mail.example"], input="n\n")
    assert asked.exit_code == 1
    assert "Nothing brings it back" in asked.output


def test_the_tables_and_settings_that_it_names_are_there() -> None:
    kept = [name for name in re.findall(r"\(`([\w`, ]+)`\)", PAGE) for name in re.findall(r"\w+", name)]
    assert {"store_order", "administration", "gdpr_export", "gdpr_erasure"} <= set(kept)
    assert all(TABLES[name].personal for name in ("store_order", "administration", "gdpr_export", "gdpr_erasure"))
    settings = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert all(f"`{name}`" in settings for name in re.findall(r"`(gdpr\.\w+)`", PAGE))
