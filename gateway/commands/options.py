"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="The gateway's data folder.", show_default=".omniops")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="The gateway.", show_default="OMNIOPS_CLIENT__URL, or the one on the data folder"),
]
TokenOption = Annotated[
    str | None, typer.Option("--token", help="Its access token.", show_default="OMNIOPS_CLIENT__TOKEN, or as it runs")
]
TenantOption = Annotated[str, typer.Option("--tenant", "-t", help="The shop, as the configuration names it.")]
#: For lists.
AnyTenantOption = Annotated[str | None, typer.Option("--tenant", "-t", help="Of this tenant only.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
