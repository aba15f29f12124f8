"""`omniops handovers`: conversations that wait for a person."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import client_for
from gateway.commands.options import AnyTenantOption, DataDirOption, JsonOption, TokenOption, UrlOption
from gateway.transcripts.clean import plain

app = typer.Typer(help="Conversations that the agent handed over to a person.", no_args_is_help=True)


@app.command("list")
def show(
    tenant: AnyTenantOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that somebody has taken.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show those that wait, the newest first."""
    asked = {"all": str(everything).lower()} | ({} if tenant is None else {"tenant": tenant})
    with client_for(data_dir, url, token, silence_s=60) as client:
        found = client.get("/v1/handovers", asked)["handovers"]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("id", "since", "tenant", "customer", "taken by", "session", "summary"):
        table.add_column(column)
    for each in found:
        customer = "" if each["customer"] is None else str(each["customer"])
        row = (str(each["id"]), each["created"][:19], each["tenant"], customer, each["taken_by"], each["session"])
        table.add_row(*(escape(text) for text in row), escape(plain(each["summary"])))
    Console().print(table)


@app.command()
def take(
    id: Annotated[int, typer.Argument(help="Of `list`.")],
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Say that you see to it."""
    with client_for(data_dir, url, token, silence_s=60) as client:
        taken = client.post(f"/v1/handovers/{id}/take", {})
    print(f"{taken['id']} is taken by {taken['taken_by']}")
