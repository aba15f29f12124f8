"""`omniops schedules`: work that begins by itself."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import client_for
from gateway.commands.options import AnyTenantOption, DataDirOption, JsonOption, TokenOption, UrlOption


def show_schedules(
    tenant: AnyTenantOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Runs that are shown.")] = 20,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show what is scheduled and when it is next due, and what was due: done, failed, missed."""
    asked = {"limit": str(limit)} | ({} if tenant is None else {"tenant": tenant})
    with client_for(data_dir, url, token, silence_s=60) as client:
        found = client.get("/v1/schedules", asked)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for rows, columns in (
        (found["schedules"], ("tenant", "name", "what", "cron", "zone", "next")),
        (found["runs"], ("due", "tenant", "name", "state", "started", "ended", "session")),
    ):
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in columns:
            table.add_column(column)
        for each in rows:
            table.add_row(*(escape(_short(column, each[column])) for column in columns))
        Console().print(table)


def _short(column: str, value: str | None) -> str:
    return (value or "")[:19] if column in ("next", "due", "started", "ended") else value or ""
