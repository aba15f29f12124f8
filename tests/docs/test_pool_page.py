"""What docs/pool.md shows is what the pool does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.profiles import profiles_of
from gateway.settings import load_settings
from kernel_pool.demand import Demand

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pool.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "omniops.toml").write_text(block("toml"))
    for name in [name for name in os.environ if name.startswith("OMNIOPS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_profiles_that_it_configures_are_as_it_says(configured: Path) -> None:
    agent, analyst, reports = profiles_of(load_settings())
    assert (agent.name, agent.minimum, agent.limits.memory_mb) == ("agent", 4, 512)
    assert (analyst.name, analyst.minimum, analyst.limits.memory_mb) == ("analyst", 1, 2048)
    assert "duckdb" in analyst.preload
    assert (reports.name, reports.display_name, reports.preload) == (
        "reports",
        "Python 3 (reports)",
        ("pandas", "duckdb"),
    )
    assert (reports.minimum, reports.limits.memory_mb) == (0, 512)


def test_the_script_that_it_shows_runs(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    done = subprocess.run(
        ["bash", "-euc", block("sh")], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "('test', 'hello')" in done.stdout
    assert "'leased': 1" in done.stdout


def test_every_setting_that_it_names_is_one_with_the_default_that_it_says() -> None:
    settings = load_settings()
    rows = re.findall(r"^\| (`[^|]+`) \| ([\d.]+) \|", PAGE, re.M)
    assert len(rows) > 12
    for names, default in rows:
        for name in re.findall(r"`([\w.]+)`", names):
            if "NAME" not in name:
                assert float(value_of(settings, name)) == float(default), name
    for name in re.findall(r"`((?:pool|cell)\.[a-z_]+)`", PAGE):
        value_of(settings, name)


def value_of(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def test_every_setting_of_stock_and_life_is_named() -> None:
    elsewhere = {
        *("provisioner", "profiles", "preload", "orphan_grace_s", "watch_interval_s", "uid_first", "uid_count"),
        *("memory_mb", "disk_mb", "processes", "open_files", "cpu_seconds", "cpus", "cgroups"),
    }
    fields = set(type(load_settings().pool).model_fields) - elsewhere
    assert {name for name in fields if f"pool.{name}" not in PAGE} == set()


def test_the_formula_is_the_one_that_is_used() -> None:
    demand = Demand(60.0)
    demand.refilled(2.0)
    for second in range(600):
        demand.arrived(float(second))
    expected = demand.rate(599.0) * demand.refill_s
    assert demand.target(599.0, 0, 100) == -int(-(expected + 2 * expected**0.5) // 1)
