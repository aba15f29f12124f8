"""`omniops tools`: what there is, how it is called, whether it is well made, and a new one.

They look at the tools of this installation. `list`, `search` and `show` ask a running gateway instead where a tenant or
its address is named: it has the tools of MCP servers, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.client import client_for
from gateway.commands.new_server import ServerExists, make_server
from gateway.commands.options import DataDirOption, TokenOption, UrlOption
from gateway.settings import load_settings
from omniops_client import Client
from servers.checking import closest
from servers.errors import ToolNotFound
from servers.finding.finder import Finders
from servers.lint import problems
from servers.reference import book
from servers.registry import Collision, Registry, load_registry
from servers.rendering import pyi
from servers.tool import Effect, Role, Tool

app = typer.Typer(help="The tools that cells can call.", no_args_is_help=True)

FolderOption = Annotated[
    Path | None, typer.Option("--dir", help="Folder with servers of your own.", show_default="as tools_dir is set")
]
ServerArgument = Annotated[str | None, typer.Argument(help="Of this server only.", show_default=False)]
RoleOption = Annotated[Role | None, typer.Option("--role", help="Only what this role may call.")]
TenantOption = Annotated[
    str | None,
    typer.Option(
        "--tenant", "-t", help="Ask a running gateway what this tenant has.", show_default="this installation"
    ),
]

#: A gateway that reads ten thousand tools for the first time takes seconds.
_SILENCE_S = 60.0
_PAGE = 200


@app.command("list")
def list_tools(
    server: ServerArgument = None,
    role: RoleOption = None,
    effect: Annotated[Effect | None, typer.Option(help="Only tools of this effect.")] = None,
    folder: FolderOption = None,
    tenant: TenantOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List the tools, those of each server that read first; those of a gateway by name."""
    if tenant or url:
        with client_for(data_dir, url, token, silence_s=_SILENCE_S) as client:
            found = _pages(client, _given(server=server, role=role, tenant=tenant))
        _show_rows([_row_of_answer(each) for each in found if effect in (None, each["effect"])])
        return
    registry = _registry(folder)
    _check_server(registry, server)
    chosen = [
        tool
        for tool in registry
        if server in (None, tool.server) and (role is None or role in tool.roles) and effect in (None, tool.effect)
    ]
    _show_rows([_row(tool) for tool in chosen])


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="What it should do, such as: refund an order.")],
    role: RoleOption = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="Most tools that are shown.")] = 10,
    folder: FolderOption = None,
    tenant: TenantOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Find tools by what they do, best first: in your own words or theirs."""
    query = " ".join(words)
    if tenant or url:
        asked = _given(query=query, role=role, limit=str(limit), tenant=tenant)
        with client_for(data_dir, url, token, silence_s=_SILENCE_S) as client:
            rows = [_row_of_answer(each) for each in client.get("/v1/tools", asked)["tools"]]
    else:
        rows = [_row(tool) for tool in Finders().of(_registry(folder)).find(query, role, limit)]
    if not rows:
        _stop(f"No tool has to do with {query!r}.")
    _show_rows(rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Such as woocommerce.lookup_order.")],
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of its arguments instead.")] = False,
    folder: FolderOption = None,
    tenant: TenantOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show all about one tool: its types, its signature, who may call it, what undoes it."""
    if tenant or url:
        with client_for(data_dir, url, token, silence_s=_SILENCE_S) as client:
            record = client.get(f"/v1/tools/{quote(name, safe='')}", _given(tenant=tenant))
        _show_tool(record, schema)
        return
    try:
        tool = _registry(folder).get(name)
    except ToolNotFound as error:
        _stop(error.message)
    stub = pyi(f"from servers.{tool.server} import {tool.name}", [tool])
    known = {"input_schema": tool.input_schema, "stub": stub, "effect": tool.effect}
    _show_tool(known | {"roles": tool.roles, "undone_by": tool.revert}, schema)


@app.command()
def reference(
    server: ServerArgument = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write.", show_default="standard output")] = None,
    folder: FolderOption = None,
) -> None:
    """Write the reference page of all tools, in markdown: signatures, parameters, types, effects, who may call them."""
    registry = _registry(folder)
    _check_server(registry, server)
    text = book(registry, list(registry.documents) if server is None else [server])
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        _stop(f"{out} cannot be written: {error.strerror}.")
    print(f"{out}: {sum(server in (None, tool.server) for tool in registry)} tools.")


@app.command()
def check(server: ServerArgument = None, folder: FolderOption = None) -> None:
    """Check names, types, descriptions and effects. Ends with status 1 where something is wrong."""
    registry = _registry(folder)
    _check_server(registry, server)
    chosen = [tool for tool in registry if server in (None, tool.server)]
    found = [f"{tool.qualified_name}: {problem}." for tool in chosen for problem in problems(tool)]
    print("\n".join(found) or f"{len(chosen)} tool{'s' * (len(chosen) != 1)}, nothing to complain about.")
    if found:
        raise typer.Exit(1)


@app.command()
def new(
    server: Annotated[str, typer.Argument(help="Name of the new server, such as weather.")],
    folder: Annotated[Path, typer.Option("--dir", help="Folder for servers of your own.")] = Path("tools"),
) -> None:
    """Make a server with a tool that works, and its test."""
    try:
        made = make_server(folder, server)
    except ServerExists as error:
        _stop(str(error))
    print("\n".join(f"made {path}" for path in made))
    print(f'Set tools_dir = "{folder}" in omniops.toml. Then try it:\n  python -m pytest {made[-1]}')


def _registry(folder: Path | None) -> Registry:
    try:
        return load_registry(folder or load_settings().tools_dir)
    except (FileNotFoundError, Collision, TypeError) as error:
        _stop(str(error))


def _check_server(registry: Registry, server: str | None) -> None:
    if server is not None and server not in registry.documents:
        likely = closest(server, registry.documents)
        _stop(f"There is no server {server!r}. " + (f"Did you mean {likely}?" if likely else ""))


def _pages(client: Client, asked: dict[str, str]) -> list[dict[str, Any]]:
    """All of a list. Raises OmniopsError."""
    found: list[dict[str, Any]] = []
    after = ""
    while after is not None:
        page = client.get("/v1/tools", asked | {"limit": str(_PAGE), "after": after})
        found += page["tools"]
        after = page["next"]
    return found


def _given(**asked: str | None) -> dict[str, str]:
    return {name: value for name, value in asked.items() if value is not None}


def _row(tool: Tool) -> tuple[str, str, str, str]:
    return tool.qualified_name, tool.effect, " ".join(tool.roles), tool.summary


def _row_of_answer(tool: dict[str, Any]) -> tuple[str, str, str, str]:
    return tool["name"], tool["effect"], " ".join(tool["roles"]), tool["summary"]


def _show_rows(rows: list[tuple[str, str, str, str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, options in (("tool", {"no_wrap": True}), ("effect", {}), ("for", {}), ("what it does", {"ratio": 1})):
        table.add_column(title, **options)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # what strangers wrote is no markup
    Console().print(table)


def _show_tool(record: dict[str, Any], schema: bool) -> None:
    if schema:
        print(json.dumps(record["input_schema"], indent=2))
        return
    print(record["stub"])
    print(f"# effect     {record['effect']}")
    print(f"# for        {', '.join(record['roles']) or 'nobody'}")
    print(f"# undone by  {record['undone_by'] or ('nothing is changed' if record['effect'] == 'read' else 'nothing')}")


def _stop(message: str) -> NoReturn:
    print(f"omniops: {message}", file=sys.stderr)
    raise typer.Exit(1)
