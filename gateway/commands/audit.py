"""`omniops audit`: who did what to the gateway."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import client_for
from gateway.commands.options import AnyTenantOption, DataDirOption, JsonOption, TokenOption, UrlOption


def show_audit(
    tenant: AnyTenantOption = None,
    action: Annotated[str | None, typer.Option(help="One, or how several begin: key. for all about keys.")] = None,
    since: Annotated[str | None, typer.Option(help="At this time or after, such as 2026-01-31T00:00:00Z.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show administrative acts, the newest first: who, what, from where, and what came of it."""
    given = {"tenant": tenant, "action": action, "since": since, "limit": str(limit)}
    asked = {name: value for name, value in given.items() if value is not None}
    with client_for(data_dir, url, token, silence_s=60) as client:
        entries = client.get("/v1/audit", asked)["entries"]
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("at", "who", "tenant", "action", "what", "from", "outcome"):
        table.add_column(title)
    for each in entries:
        shown = (each[name] for name in ("principal", "tenant", "action", "subject", "source", "outcome"))
        table.add_row(each["at"][:19], *(escape(text) for text in shown))
    Console().print(table)
