"""`omniops credentials`: what tools need and kernels never see. Values come from standard input or a prompt."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from gateway.client import client_for
from gateway.commands.options import DataDirOption, TokenOption, UrlOption
from gateway.credentials.sealing import key_text, new_key
from omniops_client import Client

app = typer.Typer(help="Tenants' credentials, on a running gateway: encrypted, never shown.", no_args_is_help=True)

TenantArgument = Annotated[str, typer.Argument(help="The shop, as the configuration names it.")]
NameArgument = Annotated[str, typer.Argument(help="Such as woocommerce_secret.")]


@app.command("set")
def set_credential(
    tenant: TenantArgument,
    name: NameArgument,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Keep a value, over the one of before. It is read from standard input, or asked for and not shown.

    Settings refer to it as secret://NAME.
    """
    if sys.stdin.isatty():
        value = typer.prompt(f"{name} of {tenant}", hide_input=True, confirmation_prompt=True)
    else:
        value = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    with _client(data_dir, url, token) as client:
        kept = client.put(f"/v1/tenants/{tenant}/credentials/{name}", {"value": value, "by": person()})
    print(f"{tenant}: {kept['name']} is set, encrypted with key {kept['key_id']}.")


@app.command("list")
def list_credentials(
    tenant: TenantArgument, data_dir: DataDirOption = None, url: UrlOption = None, token: TokenOption = None
) -> None:
    """List what there is, without values."""
    with _client(data_dir, url, token) as client:
        found = client.get(f"/v1/tenants/{tenant}/credentials")["credentials"]
    if not found:
        print(f"{tenant} has no credentials.")
        return
    table = _table("name", "key", "changed", "by")
    for each in found:
        table.add_row(each["name"], each["key_id"], each["changed"][:19], each["changed_by"])
    Console().print(table)


@app.command("delete")
def delete_credential(
    tenant: TenantArgument,
    name: NameArgument,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Delete a value for good. Calls that need it are refused from then on."""
    with _client(data_dir, url, token) as client:
        path = f"/v1/tenants/{tenant}/credentials/{name}"
        deleted = client.delete(path, {"by": person()})["deleted"]
    if not deleted:
        _stop(f"{tenant} has no credential {name!r}.")
    print(f"{tenant}: {name} is deleted.")


@app.command("check")
def check_connections(
    tenant: TenantArgument, data_dir: DataDirOption = None, url: UrlOption = None, token: TokenOption = None
) -> None:
    """Try the tenant's store and tables with its credentials. Ends with 1 where something fails."""
    with _client(data_dir, url, token) as client:
        findings = client.post(f"/v1/tenants/{tenant}/check")["findings"]
    for finding in findings:
        print(f"{finding['state']:7} {finding['what']}: {finding['told']}")
    if any(finding["state"] == "fails" for finding in findings):
        raise typer.Exit(1)


@app.command("rotate-key")
def rotate_key(data_dir: DataDirOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Encrypt every credential with a new key, and forget the old one.

    Where the key is in the settings, put a new one before it (omniops credentials new-key), start the gateway again,
    and run this; then the old one may go.
    """
    with _client(data_dir, url, token) as client:
        done = client.post("/v1/credentials/rotate", params={"by": person()})
    print(f"{done['credentials']} credentials are encrypted with key {done['key_id']} now.")


@app.command("new-key")
def print_new_key() -> None:
    """Print a key for the setting credentials.key. Needs no running gateway."""
    print(key_text(new_key()))


@app.command("log")
def show_log(
    tenant: Annotated[str | None, typer.Argument(help="Of this tenant only.", show_default=False)] = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show who set, deleted or rotated what, the newest first."""
    with _client(data_dir, url, token) as client:
        acts = client.get("/v1/administration", {"tenant": tenant} if tenant else None)["acts"]
    table = _table("at", "who", "tenant", "action", "what")
    for act in acts:
        table.add_row(act["at"][:19], act["principal"], act["tenant"], act["action"], act["subject"])
    Console().print(table)


def _client(data_dir: Path | None, url: str | None, token: str | None) -> Client:
    return client_for(data_dir, url, token, silence_s=60)


def person() -> str:
    """The name of this machine's user, for the record."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return ""
    return "".join(c for c in name if c.isalnum() or c in " .@_-")[:64]


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        table.add_column(title)
    return table


def _stop(message: str) -> NoReturn:
    print(f"omniops: {message}", file=sys.stderr)
    raise typer.Exit(1)
