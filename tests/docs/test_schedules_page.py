"""The page on schedules: its settings are settings, its command is there, its states are those that there are."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.commands import schedules
from gateway.schedules.work import cells_of
from gateway.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_settings_are_settings() -> None:
    sync, report = Settings(**tomllib.loads(blocks("toml")[0])).tenants["demo"].schedules
    assert cells_of(sync) == ["from servers.woocommerce import sync_store\nsync_store()"]
    assert (report.notebook, report.arguments, report.role) == (Path("reports/weekly.ipynb"), {"weeks": 4}, "analyst")
    for group, name in re.findall(r"`(scheduling)\.(\w+)", PAGE):
        assert name in type(getattr(Settings(), group)).model_fields


class _Gateway:
    """Its answer; tests/gateway/test_schedules.py asks a real one."""

    def __enter__(self) -> _Gateway:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, path: str, params: dict[str, str]) -> dict[str, object]:
        due = {"due": "2026-03-02T03:15:00Z", "state": "missed", "started": None, "ended": None, "session": ""}
        planned = {
            "what": "woocommerce.sync_store",
            "cron": "15 3 * * *",
            "zone": "UTC",
            "next": "2026-03-03T03:15:00Z",
        }
        named = {"tenant": "demo", "name": "nightly-sync"}
        return {"schedules": [named | planned], "runs": [named | due]}


def test_the_commands_show_what_is_planned_and_what_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "client_for", lambda *_, **__: _Gateway())
    for command in blocks("sh")[0].strip().splitlines():
        done = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
        assert done.exit_code == 0
        assert "nightly-sync" in done.output
        assert "missed" in done.output
