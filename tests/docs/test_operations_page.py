"""The page on operations: its commands run, its metrics and settings are there, what it says of codes is so."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from own_database import own_database
from prometheus_client.parser import text_string_to_metric_families
from served_gateway import ServedGateway, environment, served

from gateway.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

pytestmark = pytest.mark.timeout(300)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("reader") / ".omniops"
    with own_database(postgres) as url, served(data, environment(url)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def told(gateway: ServedGateway) -> list[str]:
    """What each command of the page prints."""
    [script] = blocks("sh")
    found = []
    for line in script.strip().splitlines():
        command = line.replace("http://127.0.0.1:8765", gateway.url)
        done = subprocess.run(["bash", "-euc", command], cwd=gateway.data_dir.parent, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
        found.append(done.stdout)
    return found


def test_the_commands_and_the_conditions(told: list[str]) -> None:
    health, ready, status, _ = told
    assert json.loads(health) == {"status": "ok"}
    conditions = json.loads(ready)["conditions"]
    assert set(conditions.values()) == {"ok"}
    assert set(re.findall(r"^\| `(\w+)` \| ", PAGE.partition("## Metrics")[0], re.M)) == set(conditions)
    assert "problem" in json.loads(status)["pool"]


def test_every_metric_is_named_and_there(told: list[str]) -> None:
    there = {name for each in text_string_to_metric_families(told[3]) for name in (each.name, f"{each.name}_total")}
    ours = {name.removesuffix("_total") for name in there if name.startswith("omniops_")}
    ours = {name for name in ours if not name.endswith("_created")}
    rows = "\n".join(re.findall(r"^\| [^|]+ \| `omniops_.*$", PAGE, re.M))
    named = set(re.findall(r"`(omniops_\w+)`", rows))
    assert named - there == set()
    assert ours - {name.removesuffix("_total") for name in named} == set()


def test_the_alerts_are_about_metrics_that_are_there(told: list[str]) -> None:
    scrape, alerts = (yaml.safe_load(block) for block in blocks("yaml"))
    assert scrape["scrape_configs"][0]["job_name"] == "omniops"
    there = {each.name for each in text_string_to_metric_families(told[3])}
    for rule in alerts["groups"][0]["rules"]:
        for name in re.findall(r"omniops_\w+", rule["expr"]):
            assert re.sub(r"_(total|bucket)$", "", name) in there, rule
        assert f"| `{rule['alert']}` |" in PAGE


def test_the_settings_are_settings() -> None:
    settings = Settings(**tomllib.loads(blocks("toml")[0]))
    assert settings.tracing.ratio == 0.1
    for group, name in re.findall(r"`(server|ready|metrics|tracing|pool|cell|jupyter)\.(\w+)[^`]*`", PAGE):
        assert name in type(getattr(settings, group)).model_fields, (group, name)
