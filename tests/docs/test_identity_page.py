"""The page on identity: its commands run in order, its table is the code's, its settings are settings."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_database import own_database
from served_gateway import ServedGateway, environment, omniops, served
from typer.testing import CliRunner, Result

from gateway.acts import ACTS, CallerRole, may
from gateway.cli import app
from gateway.settings import IdentitySettings, LimitSettings, PoolSettings, ServerSettings, TenantSettings

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()
ROLES: tuple[CallerRole, ...] = ("agent", "analyst", "tenant", "ops", "admin", "approver")

#: Of the gateway that is served.
ENVIRONMENT: dict[str, str] = {}

pytestmark = pytest.mark.timeout(300)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("reader") / ".omniops"
    with own_database(postgres) as url:
        env = environment(url, OMNIOPS_TENANTS__ACME__TOKEN="the-token-of-acme")
        with served(data, env) as gateway:
            ENVIRONMENT.update(env)
            yield gateway


def run(line: str) -> Result:
    program, *arguments = shlex.split(line)
    assert program == "omniops"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"
    return done


def status(gateway: ServedGateway, key: str, path: str = "/v1/sessions") -> int:
    with gateway.client(key) as http:
        return http.get(path).status_code


def test_the_first_start_prints_a_key_that_works_and_later_ones_none(gateway: ServedGateway) -> None:
    found = re.search(r"first key +(omk_\S+)", gateway.printed)
    assert found is not None
    assert status(gateway, found[1], "/v1/keys") == 200
    assert found[1] not in gateway.data_dir.with_name(".omniops.log").read_text()
    assert f"Bearer {found[1]}" in gateway.printed
    used = re.search(r"curl -H (.*)$", gateway.printed, re.M)
    assert used is not None
    header, address = shlex.split(used[1])
    assert address == f"{gateway.url}/v1/status"
    assert header == f"Authorization: Bearer {found[1]}"


def test_the_commands_work_in_order(gateway: ServedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gateway.data_dir.parent)
    monkeypatch.setenv("COLUMNS", "240")
    keys, audit = blocks("sh")
    create, program, listing, rotate, revoke, show = keys.splitlines()
    key = next(line for line in run(create).output.splitlines() if line.startswith("omk_"))
    id = key.split("_")[1]
    made = json.loads(run(program).output)
    assert (made["role"], made["tenant"], made["expires"]) == ("agent", "acme", None)
    assert {status(gateway, each) for each in (key, made["key"])} == {200}
    assert status(gateway, made["key"], "/api/kernels") == 403
    listed = run(listing).output
    assert all(text in listed for text in (id, "Olaf", "chat back end", "made at the first start"))
    after = next(line for line in run(rotate.replace("KEY", id)).output.splitlines() if line.startswith("omk_"))
    assert {status(gateway, each) for each in (key, after)} == {200}
    assert f"{id} (Olaf's JupyterLab) is revoked" in run(revoke.replace("KEY", id)).output
    assert {status(gateway, each) for each in (key, after)} == {401}
    acts = run(show).output
    assert [acts.count(each) for each in ("key.created", "key.rotated", "key.revoked")] == [3, 1, 1]
    everything, some = audit.splitlines()
    assert "127.0.0.1" in run(everything).output
    entries = json.loads(run(some).output)
    assert {(each["tenant"], each["outcome"]) for each in entries} == {("acme", "done")}


def test_where_no_gateway_is_asked_the_operator_works_on_the_database(gateway: ServedGateway) -> None:
    folder = gateway.data_dir.parent

    def offline(*arguments: str) -> str:
        done = omniops("keys", *arguments, "--offline", "--data-dir", ".omniops", env=ENVIRONMENT, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    key = offline("create", "--role", "ops", "--label", "night shift").strip()
    assert status(gateway, key, "/v1/approvals") == 200
    offline("revoke", key.split("_")[1])
    with gateway.client() as http:
        [entry] = http.get("/v1/audit", params={"action": "key.revoked", "limit": 1}).json()["entries"]
    assert (entry["source"], entry["role"]) == ("command line", "operator")
    wrong = omniops("keys", "revoke", "nothing", "--offline", env=ENVIRONMENT, cwd=folder)
    assert (wrong.returncode, wrong.stderr.startswith("omniops: There is no key 'nothing'")) == (1, True)


def test_the_table_is_the_codes() -> None:
    rows = re.findall(r"^\| `([\w.]+)`[^|]*\|(.*)\|$", PAGE.partition("## Roles")[2].partition("## How often")[0], re.M)
    told = {act: [cell.strip() == "yes" for cell in cells.split("|")] for act, cells in rows}
    assert told == {act: [may(role, act) for role in ROLES] for act in ACTS if act != "public"}


def test_the_settings_are_settings() -> None:
    [text] = blocks("toml")
    settings = IdentitySettings(**tomllib.loads(text)["identity"])
    assert settings.jwt.issuer == "https://PROJECT.supabase.co/auth/v1"
    groups = {
        "identity": IdentitySettings,
        "limits": LimitSettings,
        "pool": PoolSettings,
        "server": ServerSettings,
        "tenants.NAME": TenantSettings,
    }
    named = re.findall(r"`(identity|limits|pool|server|tenants\.NAME)\.(\w+)`", PAGE)
    assert len(named) > 10
    assert [name for group, name in named if name not in groups[group].model_fields] == []


@pytest.mark.parametrize("route", re.findall(r"`((?:GET|POST|DELETE) /v1/[^`]+)`", PAGE))
def test_the_routes_are_those_of_the_gateway(gateway: ServedGateway, route: str) -> None:
    method, path = route.split()
    with gateway.client() as http:
        assert method.lower() in http.get("/v1/openapi.json").json()["paths"][path]
