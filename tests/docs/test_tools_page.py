"""The page on tools, followed as a newcomer would, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tools.md").read_text()

TRIAL = """
from gateway.approvals.desk import Person
from gateway.testing import tool_session

person = Person("tester", None, decides=True)
with tool_session("critical", approved=True) as tools:
    run = tools.cell({batch!r})
    print(run.result.status)
    print("".join(each.get("text", "") for each in run.result.outputs))
    desk, reverts = tools.gateway.desk, tools.gateway.reverts
    (request,) = tools._portal.call(desk.find, person)
    view = request.calls[0].view
    print(view.target, view.currency, view.amount, view.before["balance"], view.after["balance"], view.revert)
    tools._portal.call(reverts.revert, person, request.calls[2].call)
    print(tools.call("voucher.put_euros", card="A1", euros=1)["euros"] - 1)
"""


#: The old function of the page, and the new tool through a kernel, asked the same.
MOVED = """
import json
STATIONS = {{"Bern": -3, "Rome": 12}}
{old}
from gateway.testing import tool_session
from servers.errors import ToolNotFound
with tool_session("moved") as tools:
    for given in ({{"city": "Bern"}}, {{"city": "Rome", "unit": "F"}}, {{"city": "Oslo"}}):
        before = json.loads(get_forecast(json.dumps(given)))
        try:
            assert tools.call("weather.forecast", **given) == before, before
        except ToolNotFound as error:
            assert before == {{"error": "unknown city"}}, error
            print("raised")
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's virtual environment in it, as a clone has."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def run(script: str, folder: Path) -> str:
    ours = ("OMNIOPS_", "OPENAI_", "DATABASE_URL")
    base = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{folder}/.venv/bin:{base['PATH']}"
    environment = base | {"OMNIOPS_POOL__PROVISIONER": "local", "PATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ten_minutes_lead_to_a_tool_of_ones_own(newcomer: Path) -> None:
    make, _ = blocks("sh")
    printed = run(make, newcomer)
    assert "1 tool, nothing to complain about." in printed
    assert "3 passed" in printed
    tool, trial, *_ = blocks("python")
    (newcomer / "tools" / "weather" / "tools.py").write_text(tool)
    (newcomer / "trial.py").write_text(trial)
    run("omniops tools check weather --dir tools && python trial.py", newcomer)


def test_there_is_a_look_around(newcomer: Path) -> None:
    _, look = blocks("sh")
    assert "woocommerce.refund_order" in run(look, newcomer)


def test_a_tool_that_moved_over_has_the_old_ones_definition_and_answers(newcomer: Path) -> None:
    [old] = map(json.loads, blocks("json"))
    folder = newcomer / "moved"
    (folder / "weather").mkdir(parents=True)
    (folder / "weather" / "__init__.py").write_text('"""Weather."""')
    (folder / "weather" / "tools.py").write_text(blocks("python")[0])
    new: dict[str, Any] = json.loads(run(f"omniops tools show weather.forecast --schema --dir {folder}", newcomer))
    assert new["required"] == old["parameters"]["required"]
    for name, schema in old["parameters"]["properties"].items():
        assert ("enum" in schema) == ("enum" in new["properties"][name])
        assert set(schema.get("enum", ())) == set(new["properties"][name].get("enum", ()))
    [function] = [block for block in blocks("python") if "def get_forecast" in block]
    (newcomer / "moved.py").write_text(MOVED.format(old=function))
    assert run("python moved.py", newcomer).splitlines()[-1] == "raised"


def test_a_critical_tool_is_shown_approved_in_a_batch_and_taken_back(newcomer: Path) -> None:
    voucher, batch = (block for block in blocks("python") if "put_euros" in block)
    folder = newcomer / "critical" / "voucher"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Gift cards."""')
    (folder / "tools.py").write_text(voucher)
    (newcomer / "critical.py").write_text(TRIAL.format(batch=batch))
    run("omniops tools check voucher --dir critical", newcomer)
    printed = run("python critical.py", newcomer)
    told = [line for line in printed.splitlines() if not re.match(r"\d{4}-", line)]  # without the log
    assert told == ["ok", "15", "25", "45", "", "card A1 EUR 5 10 15 take_euros", "25"]


def test_the_setting_is_understood() -> None:
    [toml] = blocks("toml")
    assert Settings(**tomllib.loads(toml)).tools_dir == Path("tools")
