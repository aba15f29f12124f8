"""`omniops tools`: what there is, how it is called, whether it is well made, and a new one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from gateway.commands.new_server import ServerExists, make_server
from gateway.settings import load_settings
from servers.checking import closest
from servers.errors import ToolNotFound
from servers.finding.finder import Finders
from servers.lint import problems
from servers.registry import Collision, Registry, load_registry
from servers.rendering import pyi
from servers.tool import Effect, Role, Tool

app = typer.Typer(help="The tools that cells can call. Needs no running gateway.", no_args_is_help=True)

FolderOption = Annotated[
    Path | None, typer.Option("--dir", help="Folder with servers of your own.", show_default="as tools_dir is set")
]
ServerArgument = Annotated[str | None, typer.Argument(help="Of this server only.", show_default=False)]
RoleOption = Annotated[Role | None, typer.Option("--role", help="Only what this role may call.")]


@app.command("list")
def list_tools(
    server: ServerArgument = None,
    role: RoleOption = None,
    effect: Annotated[Effect | None, typer.Option(help="Only tools of this effect.")] = None,
    folder: FolderOption = None,
) -> None:
    """List the tools, those of each server that read first."""
    registry = _registry(folder)
    _check_server(registry, server)
    chosen = [
        tool
        for tool in registry
        if server in (None, tool.server) and (role is None or role in tool.roles) and effect in (None, tool.effect)
    ]
    _show(chosen)


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="What it should do, such as: refund an order.")],
    role: RoleOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Most tools that are shown.")] = 10,
    folder: FolderOption = None,
) -> None:
    """Find tools by what they do, best first: in your own words or theirs."""
    found = Finders().of(_registry(folder)).find(" ".join(words), role, limit)
    if not found:
        _stop(f"No tool has to do with {' '.join(words)!r}.")
    _show(found)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Such as woocommerce.lookup_order.")],
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of its arguments instead.")] = False,
    folder: FolderOption = None,
) -> None:
    """Show all about one tool: its types, its signature, who may call it, what undoes it."""
    registry = _registry(folder)
    try:
        tool = registry.get(name)
    except ToolNotFound as error:
        _stop(error.message)
    if schema:
        print(json.dumps(tool.input_schema, indent=2))
        return
    print(pyi(f"from servers.{tool.server} import {tool.name}", [tool]))
    print(f"# effect     {tool.effect}")
    print(f"# for        {', '.join(tool.roles) or 'nobody'}")
    print(f"# undone by  {tool.revert or ('nothing is changed' if tool.effect == 'read' else 'nothing')}")


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


def _show(tools: list[Tool]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, options in (("tool", {"no_wrap": True}), ("effect", {}), ("for", {}), ("what it does", {"ratio": 1})):
        table.add_column(title, **options)
    for tool in tools:
        table.add_row(tool.qualified_name, tool.effect, " ".join(tool.roles), tool.summary)
    Console().print(table)


def _stop(message: str) -> NoReturn:
    print(f"omniops: {message}", file=sys.stderr)
    raise typer.Exit(1)
