"""`omniops ingest`: bring a site's pages in."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.client import client_for
from gateway.commands.options import DataDirOption, TenantOption, TokenOption
from gateway.commands.work import JsonOption, run_work

UrlOption = Annotated[
    str | None,
    typer.Option("--gateway", help="The gateway.", show_default="OMNIOPS_CLIENT__URL, or the one on the data folder"),
]


def ingest(
    site: Annotated[str, typer.Argument(help="Where the crawl begins; it stays on this host.", metavar="URL")],
    tenant: TenantOption,
    max_pages: Annotated[int, typer.Option(min=0, help="0: as many as the settings allow.")] = 0,
    max_depth: Annotated[int, typer.Option(min=-1, help="Links from the start; -1: as the settings have it.")] = -1,
    sitemap: Annotated[bool, typer.Option(help="Begin with the site's sitemaps, too.")] = True,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    gateway: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Crawl a site and make its pages searchable: what has not changed is skipped, what is gone is removed."""
    arguments = f"url={site!r}, max_pages={max_pages}, max_depth={max_depth}, sitemap={sitemap}"
    with client_for(data_dir, gateway, token, silence_s=60) as client:
        run_work(
            client,
            tenant,
            f"from servers.scraping import ingest_site\ningest_site({arguments})",
            title=f"ingest {site[:100]}",
            as_json=as_json,
        )
