"""`omniops sync`: make the copy of a store equal to it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gateway.client import client_for
from gateway.commands.options import DataDirOption, TenantOption, TokenOption, UrlOption
from gateway.commands.work import JsonOption, run_work

What = Literal["products", "customers", "orders", "all"]


def sync(
    tenant: TenantOption,
    what: Annotated[What, typer.Argument(help="What to copy.")] = "all",
    full: Annotated[
        bool | None, typer.Option("--full/--modified", help="Read all, or what was modified.", show_default="as is due")
    ] = None,
    delete_all: Annotated[
        bool, typer.Option("--delete-all", help="Delete what is gone, even where it is implausibly much.")
    ] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Copy a store into the database: what is new or changed is written, what is gone is deleted."""
    tool = "sync_store" if what == "all" else f"sync_{what}"
    given = {"delete_all": delete_all} | ({} if what == "customers" or full is None else {"full": full})
    arguments = ", ".join(f"{name}={value}" for name, value in given.items())
    with client_for(data_dir, url, token, silence_s=60) as client:
        run_work(
            client,
            tenant,
            f"from servers.woocommerce import {tool}\n{tool}({arguments})",
            title=f"sync {what}",
            as_json=as_json,
        )
