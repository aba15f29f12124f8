"""`omniops load`: a tenant's catalogue from its store, and conversations and orders from files, for the reports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from gateway.client import client_for
from gateway.commands.options import DataDirOption, TenantOption, TokenOption, UrlOption
from omniops_client import Client


class What(StrEnum):
    CATALOG = "catalog"
    CONVERSATIONS = "conversations"
    ORDERS = "orders"


def load(
    tenant: TenantOption,
    what: Annotated[What, typer.Argument(help="catalog: from the store; conversations, orders: from a file.")] = (
        What.CATALOG
    ),
    file: Annotated[Path | None, typer.Argument(help="Parquet or CSV.", exists=True, dir_okay=False)] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="COLUMN=VALUE", help="Of the file only rows with this value.")
    ] = None,
    begins: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Where conversations have no times: the day of the first.",
            show_default="`--days` before today",
        ),
    ] = None,
    days: Annotated[float, typer.Option(min=0.1, max=3650, help="And over how many days they are spread.")] = 30,
    currency: Annotated[str, typer.Option(help="What a file's orders are in.")] = "GBP",
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Fill a tenant's tables through a running gateway: the catalogue from its store, or a file of another's.

    What is there already stays as it is, so a load that broke off is simply made again.
    """
    if (file is None) != (what is What.CATALOG):
        raise typer.BadParameter("conversations and orders come from a FILE, the catalogue from the store.")
    with client_for(data_dir, url, token, silence_s=None) as client:
        if file is None:
            _load_catalog(client, tenant)
            return
        filters = dict(_pair(each) for each in where or ())
        rows = _rows(what, file, filters, begins and begins.replace(tzinfo=UTC), days, currency)
        _load(client, tenant, what, rows)


def _load_catalog(client: Client, tenant: str) -> None:
    report = client.post(f"/v1/tenants/{tenant}/catalog")
    counts = ", ".join(f"{report[name]} {name}" for name in ("created", "updated", "unchanged", "deleted"))
    print(f"{report['products']} products, {report['variants']} variants ({counts}) in {report['seconds']:.1f} s")


def _rows(
    what: What, file: Path, where: dict[str, str], begins: datetime | None, days: float, currency: str
) -> Iterator[tuple[str, list[Any]]]:
    """The route, and the rows that go to it, a request's at a time."""
    from servers.analytics.files import FileProblem, messages_of, orders_of

    try:
        if what is What.ORDERS:
            yield from (("orders", list(batch)) for batch in orders_of(file, where, currency))
        else:
            yield from (("messages", list(batch)) for batch in messages_of(file, where, begins, days))
    except FileProblem as problem:
        raise typer.BadParameter(str(problem)) from None


def _load(client: Client, tenant: str, what: What, rows: Iterator[tuple[str, list[Any]]]) -> None:
    console = Console(stderr=True)
    written = left = 0
    for route, batch in rows:
        body = {route: msgspec.to_builtins(batch)}
        answer = client.post(f"/v1/tenants/{tenant}/{route}", body)
        written, left = written + answer["written"], left + answer["left"]
        console.print(f"{written + left:,} {route}", end="\r", highlight=False)
    unit = "orders" if what is What.ORDERS else "messages"
    print(f"{written:,} {unit} written, {left:,} were there before")


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise typer.BadParameter(f"--where {text!r}: COLUMN=VALUE is wanted, such as domain=airline.")
    return name, value
