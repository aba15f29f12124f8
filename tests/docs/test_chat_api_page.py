"""The page on chat front ends: its programs run against a gateway, its settings are those that there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from own_database import own_database
from served_gateway import ServedGateway, environment, served

sys.path.append(str(Path(__file__).parents[1] / "gateway"))
from gateway_world import scripted_model

from demo.model.script import Script
from gateway.settings import ChatApiSettings

PAGE = (Path(__file__).parents[2] / "docs" / "chat-api.md").read_text()
HELLO = Script("hello", "Hello", (), "Hello! How can I help?")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    folder = tmp_path_factory.mktemp("chat-page")
    data = folder / "data"
    data.mkdir(mode=0o700)
    with own_database(postgres) as url, scripted_model(folder, HELLO) as model:
        env = environment(url, OMNIOPS_TENANTS__ACME__TOKEN="the-tenants-key", **model)
        with served(data, env) as running:
            yield running


def test_the_programs_of_the_page_talk_to_the_agent(gateway: ServedGateway) -> None:
    (program,) = blocks("python")
    given = f"GATEWAY, KEY = {gateway.url!r}, 'the-tenants-key'\n"
    ran = subprocess.run([sys.executable, "-c", given + program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(rf"{re.escape(HELLO.answer)}\n\d+ tokens\n", ran.stdout)
    env = {"GATEWAY": gateway.url, "KEY": "the-tenants-key", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", blocks("sh")[0]], env=env, capture_output=True, text=True, timeout=60)
    models, end = json.JSONDecoder().raw_decode(done.stdout)
    assert [each["id"] for each in models["data"]] == ["acme"]
    assert json.loads(done.stdout[end:])["choices"][0]["message"]["content"] == HELLO.answer
    with gateway.client() as http:
        assert len(http.get("/v1/sessions").json()) == 1, "both were one conversation"


def test_the_settings_and_headers_are_those_that_there_are() -> None:
    assert set(re.findall(r"`chat_api\.(\w+)`", PAGE)) == set(ChatApiSettings.model_fields)
    (yml,) = blocks("yaml")
    headers = yaml.safe_load(yml)["endpoints"]["custom"][0]["headers"]
    assert {name.lower() for name in headers} <= set(ChatApiSettings().conversation_headers)
    assert "x-openwebui-chat-id" in ChatApiSettings().conversation_headers
