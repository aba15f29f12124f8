"""`omniops mcp`: a gateway's MCP servers, and the gateway as one. And `omniops tools classify | review | accept`."""

from __future__ import annotations

import asyncio
import difflib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import address_of, client_for
from gateway.commands.credentials import person
from gateway.commands.options import DataDirOption, TokenOption, UrlOption
from gateway.commands.tools import app as tools
from gateway.settings import load_settings
from omniops_client import Client, OmniopsError
from servers.tool import Effect

app = typer.Typer(help="MCP servers of a running gateway, and the gateway as one.", no_args_is_help=True)

TenantOption = Annotated[str | None, typer.Option("--tenant", "-t", help="As this tenant has it.", show_default="all")]


class Who(StrEnum):
    """`servers.tool.Role`, in the form in which the command line takes several."""

    AGENT = "agent"
    ANALYST = "analyst"
    OPERATOR = "operator"


#: Time for a server to come up.
_SILENCE_S = 120.0


@app.command()
def status(
    tenant: TenantOption = None, data_dir: DataDirOption = None, url: UrlOption = None, token: TokenOption = None
) -> None:
    """Show the servers, their states, and what to do about those that cannot be used."""
    with _client(data_dir, url, token) as client:
        servers = client.get("/v1/servers", _of(tenant))["servers"]
    if not servers:
        print("No MCP servers: name a .mcp.json in the setting mcp.file, or tenants.NAME.mcp_file.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("server", "of", "state", "tools", "to do"):
        table.add_column(title)
    for each in servers:
        table.add_row(each["module"], each["owner"] or "all", each["state"], str(each["tools"]), _to_do(each))
    console = Console()
    console.print(table)
    for each in servers:
        for line in filter(None, (each["detail"], each["advice"], *each["notes"])):
            console.print(f"{each['module']}: {line}", markup=False, highlight=False)


@app.command()
def reconnect(
    server: Annotated[str, typer.Argument(help="As cells import it.")],
    tenant: TenantOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """End a server's connections and make one now. Ends with status 1 where that fails."""
    with _client(data_dir, url, token) as client:
        found = client.post(f"/v1/servers/{server}/reconnect", params=_of(tenant))
    print(f"{server}: {found['state']}{': ' + found['detail'] if found['detail'] else ''}")
    if found["state"] != "ready":
        raise typer.Exit(1)


@tools.command()
def classify(
    tool: Annotated[str, typer.Argument(help="Such as github.create_issue.")],
    effect: Annotated[Effect, typer.Argument(help="What it does at most.")],
    role: Annotated[
        list[Who] | None,
        typer.Option("--role", help="Who may call it; again for more.", show_default="operator"),
    ] = None,
    idempotent: Annotated[
        bool, typer.Option("--idempotent", help="It may be sent again after a crash, and its server says so too.")
    ] = False,
    tenant: TenantOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Say what a foreign tool does and who may call it. Needs a running gateway."""
    body = {"tool": tool, "effect": effect, "roles": role or [Who.OPERATOR], "idempotent": idempotent}
    with _client(data_dir, url, token) as client:
        found = client.post("/v1/tools/classify", body | {"tenant": tenant, "by": person()})
    print(f"{found['tool']}: {_class(found)}{_remark(found, idempotent)}")


@tools.command()
def review(
    server: Annotated[str, typer.Argument(help="As cells import it.")],
    tenant: TenantOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show a server's tools that nobody has classified, and those whose definitions have changed and how."""
    with _client(data_dir, url, token) as client:
        found = client.get(f"/v1/servers/{server}/tools", _of(tenant))["tools"]
    waiting = [each for each in found if each["state"] in ("unclassified", "changed")]
    if not waiting:
        print(f"Nothing of {server} waits for a person.")
        return
    console = Console(soft_wrap=True)
    for each in waiting:
        console.print(f"[bold]{escape(each['tool'])}[/bold]  {each['state']}, {each['effect']}")
        console.print("\n".join(_lines(each)), markup=False, highlight=False)
        console.print(f"  {_next(each)}\n", markup=False, highlight=False)


@tools.command()
def accept(
    tool: Annotated[str, typer.Argument(help="Such as github.create_issue.")],
    digest: Annotated[str, typer.Argument(help="Of the new definition, as `review` shows it.")],
    tenant: TenantOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Let a foreign tool's changed definition count. Its class stays as it was decided."""
    with _client(data_dir, url, token) as client:
        body = {"tool": tool, "digest": digest, "tenant": tenant, "by": person()}
        found = client.post("/v1/tools/accept", body)
    print(f"{found['tool']}: accepted; {_class(found)}")


def _class(tool: dict[str, Any]) -> str:
    return f"{tool['effect']}, for {', '.join(tool['roles']) or 'nobody'}"


def _lines(tool: dict[str, Any]) -> list[str]:
    if not tool["offered"]:
        return [f"  {line}" for line in tool["definition"].splitlines()]
    changes = difflib.unified_diff(tool["definition"].splitlines(), tool["offered"].splitlines(), n=1, lineterm="")
    return [f"  {line}" for line in list(changes)[2:]]


def _next(tool: dict[str, Any]) -> str:
    if tool["offered"]:
        return f"omniops tools accept {tool['tool']} {tool['offered_digest']}"
    return f"omniops tools classify {tool['tool']} read|write|critical --role ..."


def _remark(tool: dict[str, Any], idempotent: bool) -> str:
    remarks = []
    if tool["raised"]:
        remarks.append("raised by what its server says of it")
    if idempotent and not tool["idempotent"]:
        remarks.append("not idempotent: its server does not say so")
    return f" ({'; '.join(remarks)})" if remarks else ""


def _to_do(server: dict[str, Any]) -> str:
    parts = [f"{server[key]} {key}" for key in ("unclassified", "changed") if server[key]]
    return ", ".join(parts)


def _of(tenant: str | None) -> dict[str, str] | None:
    return {"tenant": tenant} if tenant else None


def _client(data_dir: Path | None, url: str | None, token: str | None) -> Client:
    return client_for(data_dir, url, token, silence_s=_SILENCE_S)


@app.command()
def serve(data_dir: DataDirOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Be an MCP server on standard input and output, for clients that start their servers: cells, tools, transcripts.

    It asks a running gateway over HTTP, with a key: OMNIOPS_CLIENT__URL and OMNIOPS_CLIENT__TOKEN in its environment.
    """
    from gateway.mcp_server.api import ApiError
    from gateway.mcp_server.stdio import serve_stdio

    where, key = address_of(data_dir, url, token)
    settings = load_settings(data_dir=data_dir)
    try:
        asyncio.run(serve_stdio(where, key, settings.mcp_server, silence_s=settings.cell.deadline_s + _SILENCE_S))
    except ApiError as error:
        raise OmniopsError(str(error)) from None
