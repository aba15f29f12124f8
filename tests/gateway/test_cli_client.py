"""`omniops chat`, `transcripts` and `load`, as people use them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_world import (
    KEY,
    SECRET,
    ServedGateway,
    environment,
    omniops,
    own_database,
    running_shop,
    scripted_model,
    served,
)
from typer.testing import CliRunner

from demo.model.script import Script, Step
from gateway.cli import app

HELLO = Script("hello", "Count to three", (Step("total = 1 + 2\nprint('counted')", ()),), "It is [bold]3[/bold].")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def env(folder: Path, postgres: str) -> Iterator[dict[str, str]]:
    with own_database(postgres) as url, scripted_model(folder, HELLO) as model, running_shop() as shop:
        prefix = "OMNIOPS_TENANTS__SHOP__SHOP__"
        store = {f"{prefix}URL": shop.url, f"{prefix}CONSUMER_KEY": KEY, f"{prefix}CONSUMER_SECRET": SECRET}
        yield environment(url, **model, **store)


@pytest.fixture(scope="module")
def gateway(folder: Path, env: dict[str, str]) -> Iterator[ServedGateway]:
    data = folder / ".omniops"
    data.mkdir(mode=0o700)
    with served(data, env) as gateway:
        yield gateway


def test_a_question_is_answered_and_its_steps_are_shown(
    gateway: ServedGateway, folder: Path, env: dict[str, str]
) -> None:
    done = omniops("chat", "--tenant", "shop", "Count to three", env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    for shown in ("total = 1 + 2", "counted", "It is [bold]3[/bold].", "2 steps", "session "):
        assert shown in done.stdout


def test_the_conversation_goes_on_by_its_id_and_another_gateway_by_url(
    gateway: ServedGateway, folder: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    first = omniops("chat", "-t", "shop", "Count to three", env=env, cwd=folder)
    session = first.stdout.split()[-1]
    named = ("--url", gateway.url, "--token", gateway.token)
    second = omniops("chat", "-t", "shop", "-s", session, "Count to three", *named, env=env, cwd=tmp_path)
    assert second.stdout.split()[-1] == session


def test_a_transcript_is_listed_and_shown_by_the_beginning_of_its_id(
    gateway: ServedGateway, folder: Path, env: dict[str, str]
) -> None:
    session = omniops("chat", "-t", "shop", "Count to three", env=env, cwd=folder).stdout.split()[-1]
    listed = omniops("transcripts", "list", env=env, cwd=folder).stdout
    assert session[:12] in listed
    assert "Count to three" in listed
    shown = omniops("transcripts", "show", session[:12], env=env, cwd=folder).stdout
    for text in ("Count to three", "total = 1 + 2", "counted", "It is [bold]3[/bold].", f"{session}.ipynb"):
        assert text in shown


def test_a_catalogue_is_loaded(gateway: ServedGateway, folder: Path, env: dict[str, str]) -> None:
    done = omniops("load", "--tenant", "shop", env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("50 products")
    assert "50 created" in done.stdout


def test_a_credential_is_set_listed_rotated_and_deleted_and_never_shown(gateway: ServedGateway, folder: Path) -> None:
    value = "cs_set_on_the_command_line"
    said = []

    def credentials(*arguments: str, given: str = "") -> str:
        command = ["credentials", *arguments, "--data-dir", str(folder / ".omniops")]
        done = CliRunner().invoke(app, command, input=given)
        said.append(f"{done.output} {done.exception}")
        return said[-1]

    assert "shop: store_secret is set" in credentials("set", "shop", "store_secret", given=value + "\n")
    assert "store_secret" in credentials("list", "shop")
    assert "1 credentials are encrypted" in credentials("rotate-key")
    checked = credentials("check", "shop")
    assert "works   credential store_secret" in checked
    assert "works   shop:" in checked
    assert "absent  supabase: tenants.shop.supabase is not set." in checked
    assert "no credential 'other'" in credentials("delete", "shop", "other")
    assert "store_secret is deleted" in credentials("delete", "shop", "store_secret")
    log = credentials("log", "shop")
    assert log.index("credential.deleted") < log.index("credential.set")
    assert "operator (" in log
    assert "There is no tenant 'nobody'" in credentials("set", "nobody", "store_secret", given=value)
    assert "cannot name a credential" in credentials("set", "shop", "Bad-Name", given=value)
    with gateway.client("the-shops-own-token") as http:
        path = "/v1/tenants/shop/credentials"
        refused = [
            http.get(path),
            http.put(f"{path}/mine", json={"value": value}),
            http.delete(f"{path}/mine"),
            http.post("/v1/credentials/rotate"),
            http.post("/v1/tenants/shop/check"),
            http.get("/v1/administration"),
        ]
    assert [answer.status_code for answer in refused] == [403] * 6
    with gateway.client() as http:
        wrong = http.put(f"{path}/mine", json={"value": [value], "by": value + "/"})
    assert wrong.status_code == 422
    said += [answer.text for answer in (*refused, wrong)]
    assert value not in "".join(said)


@pytest.mark.timeout(300)  # ten commands that start anew
def test_the_pages_commands_work(gateway: ServedGateway, folder: Path, env: dict[str, str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "credentials.md").read_text()
    [commands] = re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)
    script = "set -e\n" + commands.replace("acme", "shop")
    path = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=env | {"PATH": path}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shop: store_secret is deleted." in done.stdout
    assert "cs_0123456789abcdef" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chat", "-t", "nobody", "hi"), "There is no tenant 'nobody'. Configured: other, shop."),
        (("chat", "-t", "shop", "-s", "no-such", "hi"), "There is no session 'no-such'."),
        (("load", "-t", "other"), "Tenant 'other' has no store. Set tenants.other.shop"),
        (("chat", "-t", "shop", "--url", "http://127.0.0.1:1", "--token", "x", "hi"), "No gateway answers at"),
        (("chat", "-t", "shop", "--url", "http://127.0.0.1:1", "hi"), "--url needs the gateway's access token"),
        (("transcripts", "show", "no-such"), "There is no transcript of a session 'no-such'"),
        (("transcripts", "show", "../token"), "'../token' is no session id"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    gateway: ServedGateway, folder: Path, env: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    done = omniops(*arguments, env=env, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("omniops: ")
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_without_a_gateway_it_is_said_how_to_start_one(tmp_path: Path, env: dict[str, str]) -> None:
    done = omniops("chat", "-t", "shop", "hi", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert f"No gateway runs on the data folder {tmp_path}/.omniops. Start one (omniops serve)" in done.stderr
    assert not (tmp_path / ".omniops").exists()


def test_transcripts_are_read_without_a_gateway(tmp_path: Path, env: dict[str, str]) -> None:
    done = omniops("transcripts", "list", "--data-dir", "elsewhere", env=env, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"No transcripts in {tmp_path}/elsewhere/transcripts.\n")


@pytest.mark.parametrize("command", [(), ("serve",), ("chat",), ("load",), ("transcripts",), ("transcripts", "show")])
def test_every_command_explains_itself(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = omniops(*command, "--help", env=environment(), cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: " in done.stdout
