"""The page on chat: its tools are the agent's, its settings are settings, its commands are there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gateway.broker.policy import check_allowed
from gateway.cli import app
from gateway.commands import handovers
from gateway.settings import AgentSettings, Settings
from gateway.types import Grant
from servers.registry import load_registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "chat.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_each_tool_of_the_table_is_one_that_a_conversation_may_call() -> None:
    registry = load_registry()
    grant = Grant(tenant="shop", principal="p", session="s", role="agent")
    named = re.findall(r"`((?:woocommerce|catalog|support)\.\w+)`", PAGE)
    for name in named:
        check_allowed(grant, registry.get(name))
    assert set(AgentSettings().everyday_tools) <= set(named)
    assert registry.get("woocommerce.refund_order").effect == "critical"


def test_the_settings_are_settings() -> None:
    [toml] = blocks("toml")
    settings = Settings(**tomllib.loads(toml))
    assert settings.tenants["acme"].shop is not None
    assert settings.approvals.roles["agent"].amount == 200


def test_the_commands_are_there() -> None:
    known = typer.main.get_command(app)
    for line in blocks("sh")[0].strip().splitlines():
        program, *words = shlex.split(line)
        assert program == "omniops"
        command = known
        context = typer.Context(known)
        while words and hasattr(command, "get_command") and (found := command.get_command(context, words[0])):
            command, words = found, words[1:]
        assert command is not known, line
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_what_the_page_refers_to_exists() -> None:
    for path in re.findall(r"`((?:tests|demo)/[\w/]+\.\w+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_a_hand_over_is_shown_with_nothing_of_it_taken_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "[red]wants\x1b[31m a refund[/red]"
    waiting = {"id": 7, "created": "2026-03-02T12:00:00Z", "tenant": "acme", "customer": None, "taken_by": ""}

    class Gateway:
        """Its answers; tests/gateway/test_operations.py asks a real one."""

        def __enter__(self) -> Gateway:
            return self

        def __exit__(self, *_: object) -> None: ...

        def get(self, path: str, params: dict[str, str]) -> dict[str, object]:
            return {"handovers": [waiting | {"session": "s", "summary": hostile}]}

        def post(self, path: str, body: dict[str, str]) -> dict[str, object]:
            return {"id": int(path.split("/")[3]), "taken_by": "anna"}

    monkeypatch.setattr(handovers, "client_for", lambda *_, **__: Gateway())
    listed = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["handovers", "list"], catch_exceptions=False).output
    assert "[red]wants" in listed
    assert "\x1b" not in listed
    assert "7 is taken by anna" in CliRunner().invoke(app, ["handovers", "take", "7"], catch_exceptions=False).output
