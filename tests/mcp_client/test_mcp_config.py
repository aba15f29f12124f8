"""`.mcp.json`: as people have it, with variables put in and secrets known; what is wrong is said, by whom it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.mcp_client.config import (
    ConfigError,
    Http,
    ServerConfig,
    Stdio,
    module_name,
    read_config,
    read_configs,
)
from gateway.settings import McpSettings, Settings, TenantSettings

ENVIRONMENT = {
    "TOKEN": "ghp_0123456789",
    "HOME": "/home/anna",
    "EMPTY": "",
    "OMNIOPS_SERVER__TOKEN": "the-gateways-own",
    "OPENAI_API_KEY": "sk-the-gateways-own",
    "DATABASE_URL": "postgresql://the-gateways-own",
}


def read(tmp_path: Path, **servers: Any) -> tuple[ServerConfig, ...]:
    path = tmp_path / ".mcp.json"
    path.write_text(json.dumps({"mcpServers": servers, "inputs": []}))
    return read_config(path, "", ENVIRONMENT)


def one(tmp_path: Path, **server: Any) -> ServerConfig:
    return read(tmp_path, it=server)[0]


def test_both_kinds_of_servers_are_read_and_what_others_put_in_is_left_alone(tmp_path: Path) -> None:
    files, hub, old = read(
        tmp_path,
        files={"command": "npx", "args": ["-y", "server", "${HOME}"], "env": {"DEBUG": 1}, "autoApprove": ["x"]},
        hub={"type": "http", "url": "https://hub.example/mcp?v=2", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        old={"type": "sse", "url": "https://old.example/sse"},
    )
    assert files.transport == Stdio("npx", ("-y", "server", "/home/anna"), {"DEBUG": "1"}, str(tmp_path))
    assert hub.transport == Http("https://hub.example/mcp?v=2", {"Authorization": "Bearer ghp_0123456789"}, "http")
    assert isinstance(old.transport, Http)
    assert old.transport.kind == "sse"
    assert [each.transport.shown for each in (files, hub, old) if each.transport] == [
        "stdio: npx",
        "http: https://hub.example/mcp",
        "sse: https://old.example/sse",
    ]


def test_a_server_that_is_switched_off_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, off={"command": "x", "disabled": True}) == ()


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a ${TOKEN} b", "a ghp_0123456789 b"),
        ("${UNSET:-a default}", "a default"),
        ("${UNSET:-}", ""),
        ("${EMPTY:-a default}", "a default"),
        ("${EMPTY}", ""),
        ("$TOKEN ${} ${1} ${a b}", "$TOKEN ${} ${1} ${a b}"),
        ("${TOKEN}${TOKEN}", "ghp_0123456789ghp_0123456789"),
    ],
)
def test_variables_are_put_in(tmp_path: Path, text: str, expanded: str) -> None:
    found = one(tmp_path, command="x", args=[text], env={"A": text}, cwd="${UNSET:-.}").transport
    assert isinstance(found, Stdio)
    assert (found.args, found.env) == ((expanded,), {"A": expanded})


def test_what_came_from_a_variable_is_known_as_a_secret_and_shown_nowhere(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        url="https://anna:hunter2222@x.example/${TOKEN}",
        headers={"X-Plain": "Bearer sekret77", "Authorization": "Bearer ${TOKEN}"},
    )
    assert {"ghp_0123456789", "hunter2222", "sekret77"} <= found.secrets
    assert [each for each in ("ghp_", "hunter", "sekret") if each in repr(found)] == []
    stdio = one(tmp_path, command="x", args=["${HOME}"], env={"API_KEY": "written-here", "MODE": "fast-mode"})
    assert stdio.secrets == {"written-here"}
    assert "written-here" not in repr(stdio)


def test_credentials_are_named_by_a_tenants_own_file_where_nobody_sees_them(tmp_path: Path) -> None:
    def problem(owner: str, **server: Any) -> str:
        path = tmp_path / ".mcp.json"
        path.write_text(json.dumps({"mcpServers": {"it": server}}))
        (found,) = read_config(path, owner, ENVIRONMENT)
        assert not [each for each in found.secrets if "secret://" in each]
        return found.problem

    url = "https://x.example/mcp"
    assert problem("acme", command="x", env={"API_KEY": "secret://crm_key"}) == ""
    assert problem("acme", url=url, headers={"Authorization": "Bearer ${secret://crm_key}"}) == ""
    assert "names a credential of one tenant" in problem("", command="x", env={"API_KEY": "secret://crm_key"})
    for others in (
        {"command": "x", "args": ["secret://crm_key"]},
        {"command": "x", "args": ["${secret://crm_key}"]},
        {"url": f"{url}?key=${{secret://crm_key}}"},
    ):
        assert "understood in `env` and `headers` alone" in problem("acme", **others)
    for value in ("Bearer secret://crm_key", "secret://other/crm_key", "${secret://Crm}", "secret://"):
        assert "write `secret://NAME` as the whole value" in problem("acme", url=url, headers={"A": value})


@pytest.mark.parametrize("name", ["OMNIOPS_SERVER__TOKEN", "OPENAI_API_KEY", "DATABASE_URL"])
def test_the_gateways_own_secrets_are_given_to_no_server(tmp_path: Path, name: str) -> None:
    for server in ({"command": "x", "env": {"A": f"${{{name}}}"}}, {"url": f"https://x.example/${{{name}:-y}}"}):
        found = one(tmp_path, **server)
        assert found.transport is None
        assert "gateway's own" in found.problem
        assert ENVIRONMENT[name] not in found.problem


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({"command": "x", "env": {"A": "${NOT_SET}"}}, "NOT_SET is not set in the gateway's environment"),
        ({}, "either `command` (a program) or `url`"),
        ({"command": "x", "url": "https://x.example"}, "either `command` (a program) or `url`"),
        ({"type": "websocket", "url": "ws://x"}, "the type 'websocket' is not known: stdio, http or sse"),
        ({"type": "http", "command": "x"}, "a server of type 'http' has a `url`"),
        ({"url": "file:///etc/passwd"}, "`url` is not an http or https address"),
        ({"command": "x", "args": "one string"}, "Expected `array`, got `str` - at `$.args`"),
        ({"url": "https://x.example", "headers": {"A": "b\r\nC: d"}}, "`headers` has one that HTTP does not allow"),
        ({"command": "x", "args": ["a\0b"]}, "a NUL character"),
    ],
)
def test_what_is_wrong_with_one_server_is_its_own(tmp_path: Path, server: dict[str, Any], problem: str) -> None:
    good, bad = read(tmp_path, good={"command": "x"}, bad=server)
    assert (good.problem, bad.transport) == ("", None)
    assert problem in bad.problem


@pytest.mark.parametrize("text", ["", "[]", '{"servers": {}}', '{"mcpServers": []}', "[" * 100_000])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / ".mcp.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"\.mcp\.json is no"):
        read_config(path, "", {})
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "missing.json", "", {})


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("github", "github"),
        ("Brave-Search", "brave_search"),
        ("@scope/my server", "scope_my_server"),
        ("3d", "mcp_3d"),
        ("import", "mcp_import"),
        ("日本", "mcp"),
        ("../../etc", "etc"),
    ],
)
def test_a_name_becomes_a_module(name: str, module: str) -> None:
    assert module_name(name) == module
    assert module.isidentifier()


def test_names_that_meet_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'a-b' and 'a\.b' both become servers\.a_b"):
        read(tmp_path, **{"a-b": {"command": "x"}, "a.b": {"command": "x"}})


def test_tenants_have_files_of_their_own_and_take_no_name_that_is_taken(tmp_path: Path) -> None:
    def file(name: str, *servers: str) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps({"mcpServers": {each: {"command": "x"} for each in servers}}))
        return path

    def settings(**tenants: Path) -> Settings:
        files = {name: TenantSettings(mcp_file=path) for name, path in tenants.items()}
        return Settings(mcp=McpSettings(file=file("all.json", "github")), tenants=files)

    both = settings(acme=file("acme.json", "crm"), other=file("other.json", "crm"))
    found = read_configs(both, ("woocommerce",))
    assert [(each.owner, each.module) for each in found] == [("", "github"), ("acme", "crm"), ("other", "crm")]
    with pytest.raises(ConfigError, match="the product has a server 'woocommerce' of its own"):
        read_configs(settings(acme=file("taken.json", "WooCommerce")), ("woocommerce",))
    with pytest.raises(ConfigError, match="has a server 'GitHub' for all"):
        read_configs(settings(acme=file("taken.json", "GitHub")), ())
