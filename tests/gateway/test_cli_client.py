"""`omniops chat`, `transcripts` and `load`, as people use them."""

from __future__ import annotations

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

from demo.model.script import Script, Step

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
