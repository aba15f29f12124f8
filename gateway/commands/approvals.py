"""`omniops approvals` and `omniops calls`: decide about calls that wait, and take back what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer
from rich.console import Console

from gateway.approval_view import show_list, show_one, show_writes
from gateway.client import client_for
from gateway.commands.options import AnyTenantOption, DataDirOption, JsonOption, UrlOption
from omniops_client import Client

app = typer.Typer(help="Calls that wait for a person, on a running gateway.", no_args_is_help=True)
calls = typer.Typer(help="Writes that sessions made, on a running gateway.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The request, as `list` shows it.")]
SessionOption = Annotated[str | None, typer.Option("--session", "-s", help="Of this session only.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="Most that are shown.")]
TokenOption = Annotated[
    str | None, typer.Option("--token", help="Your own token.", show_default="OMNIOPS_CLIENT__TOKEN, or as it runs")
]


@app.command("list")
def list_approvals(
    state: Annotated[
        Literal["pending", "approved", "denied", "expired", "withdrawn"], typer.Option(help="Which ones.")
    ] = "pending",
    every: Annotated[bool, typer.Option("--all", help="Whatever their state.")] = False,
    tenant: AnyTenantOption = None,
    session: SessionOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List requests, the newest first; those that wait, unless you ask for others."""
    asked = {"state": None if every else state, "tenant": tenant, "session": session, "limit": str(limit)}
    with _client(data_dir, url, token) as client:
        found = client.get("/v1/approvals", {name: value for name, value in asked.items() if value is not None})
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        show_list(Console(), found)
    else:
        print("Nothing waits for a decision." if not every and state == "pending" else "No such requests.")


@app.command()
def show(
    id: IdArgument,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show what a request would do: target, amount, before and after, what takes it back."""
    with _client(data_dir, url, token) as client:
        _tell(client.get(f"/v1/approvals/{quote(id, safe='')}"), as_json)


@app.command()
def approve(
    id: IdArgument,
    only: Annotated[
        list[int] | None,
        typer.Option("--only", min=1, help="The number of a call that may go out; the others are refused. May repeat."),
    ] = None,
    note: Annotated[str, typer.Option(help="For the record.")] = "",
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Let the calls of a request go out: all of them, or those that --only names."""
    body: dict[str, Any] = {"note": note, "calls": only or None}
    with _client(data_dir, url, token) as client:
        _tell(client.post(f"/v1/approvals/{quote(id, safe='')}/approve", body), as_json)


@app.command()
def deny(
    id: IdArgument,
    note: Annotated[str, typer.Option(help="Why; it is told to whoever made the call.")] = "",
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Refuse all calls of a request."""
    with _client(data_dir, url, token) as client:
        _tell(client.post(f"/v1/approvals/{quote(id, safe='')}/deny", {"note": note}), as_json)


@calls.command("list")
def list_calls(
    tenant: AnyTenantOption = None,
    session: SessionOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List writes, the newest first, and what takes each back."""
    asked = {"tenant": tenant, "session": session, "limit": str(limit)}
    with _client(data_dir, url, token) as client:
        found = client.get("/v1/calls", {name: value for name, value in asked.items() if value is not None})
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        show_writes(Console(), found)
    else:
        print("No writes.")


@calls.command()
def revert(
    call: Annotated[int, typer.Argument(min=1, metavar="CALL", help="Its number, as `list` shows it.")],
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Take back what a call did, by the tool that undoes it; once, whoever else asks."""
    with _client(data_dir, url, token) as client:
        done = client.post(f"/v1/calls/{call}/revert")
    print(json.dumps(done, indent=2) if as_json else f"Call {call} ({done['tool']}) is taken back.")


def _tell(approval: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(approval, indent=2))
    else:
        show_one(Console(), approval)


def _client(data_dir: Path | None, url: str | None, token: str | None) -> Client:
    return client_for(data_dir, url, token, silence_s=120)
