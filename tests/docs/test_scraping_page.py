"""The page on sites' pages: its commands and its cell run against a site on loopback, its settings are real."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from loopback import listening
from own_database import own_database
from served_gateway import ServedGateway, environment, served
from typer.testing import CliRunner

from gateway.cli import app
from gateway.settings import ScrapingSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
from site_double import help_centre, made

PAGE = (Path(__file__).parents[2] / "docs" / "scraping.md").read_text()

pytestmark = pytest.mark.timeout(300)


def blocks(language: str) -> list[str]:
    return [str(found) for found in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)]


@dataclass(frozen=True)
class Reader:
    gateway: ServedGateway
    site: str

    def here(self, text: str) -> str:
        """The page's words, with the site on loopback in its example's place."""
        return text.replace("https://help.example.com/", self.site + "/")


@pytest.fixture(scope="module")
def reader(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    data = tmp_path_factory.mktemp("reader") / ".omniops"
    with (
        own_database(postgres) as url,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(listening(help_centre([made(n) for n in range(4)]))) as site,
    ):
        allowed = {"OMNIOPS_TENANTS__ACME__SCRAPING__ALLOWED_HOSTS": json.dumps([site.removeprefix("http://")])}
        with served(
            data, environment(url, **allowed, OMNIOPS_TENANTS__ACME__SCRAPING__REQUESTS_PER_S="1000")
        ) as gateway:
            yield Reader(gateway, site)


def test_the_commands_work_in_order(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader.gateway.data_dir.parent)
    monkeypatch.setenv("COLUMNS", "240")
    told = []
    [commands] = blocks("sh")
    for line in reader.here(commands).splitlines():
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/omniops"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"
        told.append(done.output)
    everything, few, runs = told
    assert "ingest_site: " in everything, "progress is shown"
    assert '"stored": 6' in everything
    assert '"stopped": "pages"' in few
    assert runs.count("scraping.ingest_site") == 2


def test_the_cell_works(reader: Reader) -> None:
    [code] = blocks("python")
    with reader.gateway.client() as http:
        id = str(http.post("/v1/sessions", json={"tenant": "acme", "role": "operator"}).json()["id"])
        answer = http.post(f"/v1/sessions/{id}/cells", json={"code": reader.here(code)}).raise_for_status()
        http.delete(f"/v1/sessions/{id}").raise_for_status()
    assert "Plan" in answer.text, answer.text
    assert "{'forbidden': 1}" in answer.text, answer.text


def test_the_settings_are_real_and_what_is_not_said_otherwise_the_default() -> None:
    crawl, endpoint = (tomllib.loads(text)["tenants"]["acme"]["scraping"] for text in blocks("toml"))
    settings = ScrapingSettings(**crawl, **endpoint)
    defaults = ScrapingSettings()
    assert settings.model_copy(update={"allowed_hosts": (), "endpoint": None}) == defaults
    assert settings.endpoint is not None
    assert settings.endpoint.inputs == 2048
