"""Kinds of kernels: what comes with the product, what settings make of it, and which one a session gets."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from gateway_world import ServedGateway, environment, served, settings_for

from gateway.profiles import profile_for, profiles_of
from gateway.runtime import open_gateway
from gateway.settings import SettingsError, load_settings
from gateway.start_error import StartError
from kernel_pool.types import QuotaExceeded, UnknownProfile


def test_agent_analyst_and_stock_come_with_the_product() -> None:
    settings = load_settings()
    agent, analyst, stock = profiles_of(settings)
    assert (agent.name, agent.preload, agent.minimum) == ("agent", ("numpy", "pandas", "pyarrow"), 2)
    assert analyst.name == "analyst"
    assert {"pandas", "pyarrow", "duckdb", "matplotlib"} <= set(analyst.preload)
    assert (stock.kernel, agent.kernel, stock.preload, stock.minimum) == ("stock", "forked", (), 0)
    assert profile_for(settings, "agent") == profile_for(settings, "operator") == "agent"
    assert profile_for(settings, "analyst") == "analyst"


def test_single_fields_of_them_can_be_changed_and_others_added() -> None:
    profiles = {
        "analyst": {"minimum": 1, "memory_mb": 2048},
        "stock": {"enabled": False},
        "bare": {"preload": [], "maximum": 3},
    }
    settings = load_settings(pool={"warm": 5, "memory_mb": 300, "profiles": profiles})
    agent, analyst, bare = profiles_of(settings)
    assert (agent.minimum, agent.maximum, agent.limits.memory_mb) == (5, 8, 300)
    assert (analyst.minimum, analyst.maximum, analyst.limits.memory_mb) == (1, 4, 2048)
    assert "duckdb" in analyst.preload
    assert (bare.name, bare.display_name, bare.preload, bare.minimum, bare.maximum) == (
        "bare",
        "Python 3 (bare)",
        (),
        5,
        5,
    )


def test_another_profile_can_be_for_a_role() -> None:
    settings = load_settings(pool={"profiles": {"agent": {"roles": ["agent", "analyst"]}}})
    assert profile_for(settings, "analyst") == "agent"
    assert profile_for(settings, "operator") == "agent"


@pytest.mark.parametrize("name", ["", "Big", "a.b", "../x", "a" * 17])
def test_a_name_that_cannot_be_part_of_a_path_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"pool\.profiles"):
        load_settings(pool={"profiles": {name: {}}})


async def test_without_any_profile_there_is_no_gateway(tmp_path: Path, database_url: str) -> None:
    off = {name: {"enabled": False} for name in ("agent", "analyst", "stock")}
    settings = settings_for(tmp_path / "d", database_url, pool={"provisioner": "local", "profiles": off})
    with pytest.raises(StartError, match="turns every profile off"):
        async with open_gateway(settings):
            pass


async def test_a_session_keeps_its_profile_over_a_restore(tmp_path: Path, database_url: str) -> None:
    profiles = {"agent": {}, "bare": {"minimum": 0}, "analyst": {"preload": []}}
    pool = {"provisioner": "local", "warm": 1, "preload": (), "profiles": profiles}
    settings = settings_for(tmp_path / "d", database_url, pool=pool)
    async with open_gateway(settings) as gateway:
        sessions = gateway.sessions
        info = await sessions.create("shop", "test", "agent", profile="bare")
        assert info.profile == "bare"
        assert (await sessions.create("shop", "test", "analyst", kernel=False)).profile == "analyst"
        with pytest.raises(UnknownProfile, match="no profile 'big'"):
            await sessions.create("shop", "test", "agent", profile="big")
        await sessions.run_cell(info.id, "1 + 1")
    async with open_gateway(settings) as gateway:
        await gateway.sessions.restore(info.id)
        kernel = gateway.sessions.kernel(info.id)
        assert kernel is not None
        assert kernel.profile.name == "bare"


async def test_a_tenants_quota_is_its_own(tmp_path: Path, database_url: str) -> None:
    pool = {"provisioner": "local", "warm": 1, "preload": (), "tenant_maximum": 1}
    async with open_gateway(settings_for(tmp_path / "d", database_url, pool=pool)) as gateway:
        info = await gateway.sessions.create("shop", "test", "agent")
        with pytest.raises(QuotaExceeded):
            await gateway.sessions.create("shop", "test", "agent")
        await gateway.sessions.create("other", "test", "agent")
        await gateway.sessions.end(info.id)
        await gateway.sessions.create("shop", "test", "agent")


def test_clients_name_profiles_and_hear_of_quotas(database_url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    more = {"OMNIOPS_POOL__TENANT_MAXIMUM": "1"}
    with served(data, environment(database_url, **more)) as gateway, gateway.client() as http:
        _clients(gateway, http)
        assert gateway.stop() == 0


def _clients(gateway: ServedGateway, http: httpx.Client) -> None:
    unknown = http.post("/v1/sessions", json={"tenant": "shop", "profile": "big"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "bad_request")
    assert "there are: agent, analyst, stock" in unknown.json()["message"]
    made = http.post("/v1/sessions", json={"tenant": "shop", "profile": "agent"})
    assert (made.status_code, made.json()["profile"]) == (201, "agent")
    refused = http.post("/v1/sessions", json={"tenant": "shop"})
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert "tenant shop has 1 kernels of at most 1" in refused.json()["message"]
    profiles = http.get("/v1/status").json()["pool"]["profiles"]
    assert profiles["agent"]["leased"] == 1
    assert set(profiles) == {"agent", "analyst", "stock"}


async def test_the_analysts_libraries_are_loaded_and_plots_are_shown(tmp_path: Path, database_url: str) -> None:
    pool = {"provisioner": "local", "warm": 0, "preload": ()}
    async with open_gateway(settings_for(tmp_path / "d", database_url, pool=pool)) as gateway:
        session = (await gateway.sessions.create("shop", "test", "analyst")).id
        loaded = (
            "import sys\nprint([m for m in ('pandas', 'pyarrow', 'duckdb', 'matplotlib.pyplot') if m in sys.modules])"
        )
        run = await gateway.sessions.run_cell(session, loaded)
        assert "['pandas', 'pyarrow', 'duckdb', 'matplotlib.pyplot']" in run.envelope
        code = "import matplotlib.pyplot as plt\nimport duckdb, pandas as pd\n"
        code += "d = pd.DataFrame({'a': [1, 2, 3]})\nplt.plot(duckdb.sql('select a * 2 as b from d').df().b);"
        run = await gateway.sessions.run_cell(session, code)
        assert run.result.status == "ok", run.result.error
        kinds = [set(output.get("data", {})) for output in run.result.outputs]
        assert any("image/png" in kind for kind in kinds), run.result.outputs
