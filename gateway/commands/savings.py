"""`omniops savings`: what cells saved, against tools called one by one."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import client_for
from gateway.commands.options import AnyTenantOption, DataDirOption, JsonOption, TokenOption, UrlOption


def show_savings(
    tenant: AnyTenantOption = None,
    since: Annotated[str, typer.Option(help="So long ago, such as 12h or 30d, or 2026-01-31T00:00:00Z.")] = "30d",
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show what workloads cost the model, and what the same would have cost by tools called one by one."""
    asked = {"since": _moment(since)} | ({} if tenant is None else {"tenant": tenant})
    with client_for(data_dir, url, token, silence_s=60) as client:
        found = client.get("/v1/savings", asked)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in (
        "tenant",
        "workload",
        "runs",
        "tokens",
        "one by one",
        f"cost {found['currency']}",
        "one by one",
        "saved",
    ):
        table.add_column(name, justify="left" if name in ("tenant", "workload") else "right")
    for each in found["savings"]:
        table.add_row(
            escape(each["tenant"]),
            escape(each["workload"]),
            f"{each['runs']:,}",
            f"{each['tokens']:,}",
            f"{each['direct_tokens']:,}",
            f"{each['cost']:,.4f}",
            f"{each['direct_cost']:,.4f}",
            f"{each['saved']:,.4f}",
        )
    Console().print(table)


def _moment(text: str) -> str:
    ago = re.fullmatch(r"(\d{1,5})([hd])", text)
    if ago is None:
        return text
    hours = int(ago[1]) * (24 if ago[2] == "d" else 1)
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
