"""`omniops gdpr`: what is kept of one person, given out or erased."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from gateway.client import address_of, client_for
from gateway.commands.options import DataDirOption, TenantOption, TokenOption, UrlOption
from gateway.commands.work import JsonOption, run_work

app = typer.Typer(help="What is kept of one person: give it out, erase it.", no_args_is_help=True)

EmailOption = Annotated[str, typer.Option("--email", help="The person's.")]
CustomerOption = Annotated[int, typer.Option("--customer", min=0, help="The shop's id of the person.")]


@app.command()
def export(
    tenant: TenantOption,
    email: EmailOption = "",
    customer: CustomerOption = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Fetch the file to here, too.", dir_okay=False)
    ] = None,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Put everything about a person into a file at the gateway, and tell its link, which expires."""
    code = f"from servers.gdpr import export_person\nexport_person(email={email!r}, customer_id={customer})"
    with client_for(data_dir, url, token, silence_s=60) as client:
        report = run_work(client, tenant, code, title="export of a person", as_json=as_json)
    link = str(report["link"])
    if link.startswith("/"):
        link = address_of(data_dir, url, token)[0].rstrip("/") + link
    print(f"Until {report['expires']}, for whoever has it: {link}", file=sys.stderr)
    if output is not None:
        _fetch(link, output)


@app.command()
def erase(
    tenant: TenantOption,
    email: EmailOption = "",
    customer: CustomerOption = 0,
    reason: Annotated[str, typer.Option(help="Such as 'asked for it by letter'.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask here; somebody else is asked all the same.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Erase everything about a person, for good. Waits until somebody else has approved it (omniops approvals)."""
    who = " and ".join(each for each in (email, f"customer {customer}" if customer else "") if each)
    if not yes:
        typer.confirm(f"Erase all that tenant {tenant} has of {who or 'nobody'}? Nothing brings it back.", abort=True)
    call = f"erase_person(email={email!r}, customer_id={customer}, reason={reason!r})"
    with client_for(data_dir, url, token, silence_s=None) as client:
        print("Somebody else has to approve it: omniops approvals list", file=sys.stderr)
        run_work(client, tenant, f"from servers.gdpr import erase_person\n{call}", title="erasure", as_json=as_json)


@app.command("list")
def list_exports(data_dir: DataDirOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Show the exports that were made, the newest first."""
    with client_for(data_dir, url, token, silence_s=60) as client:
        found = client.get("/v1/exports")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("export", "tenant", "state", "created", "expires", "MB", "uses", "by"):
        table.add_column(column)
    for each in found:
        state = "revoked" if each["revoked"] else each["state"]
        size, times = f"{each['bytes'] / 1e6:,.1f}", (each["created"][:19], each["expires"][:19])
        table.add_row(each["export"], each["tenant"], state, *times, size, str(each["uses"]), each["principal"])
    Console().print(table)


@app.command()
def revoke(
    export: Annotated[str, typer.Argument(help="The export, as `list` names it.")],
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """End an export before its time: its link holds no more, its file is removed."""
    with client_for(data_dir, url, token, silence_s=60) as client:
        client.delete(f"/v1/exports/{export}")
    print("Revoked.")


def _fetch(link: str, to: Path) -> None:
    """Raises typer.Exit (1)."""
    with httpx.stream("GET", link, timeout=60) as answer:
        if not answer.is_success:
            print(f"The file cannot be fetched: status {answer.status_code}.", file=sys.stderr)
            raise typer.Exit(1)
        to.touch(mode=0o600)
        with to.open("wb") as file:
            for piece in answer.iter_bytes():
                file.write(piece)
    print(f"Written to {to}.", file=sys.stderr)
