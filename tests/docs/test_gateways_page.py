"""docs/gateways.md: its configuration, and that what it names is there. What it says is tried in test_peers.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings import load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "gateways.md").read_text()


def test_its_configuration_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "omniops.toml").write_text(block)
    monkeypatch.setenv("OMNIOPS_CONFIG", str(tmp_path / "omniops.toml"))
    settings = load_settings()
    assert (str(settings.peers.url), settings.peers.lease_s) == ("http://10.0.0.11:8765/", 10)
    for group, name in re.findall(r"`(peers|pool|server)\.([a-z_]+)", PAGE):
        assert name in type(getattr(settings, group)).model_fields, f"{group}.{name}"
