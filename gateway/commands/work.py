"""`omniops work`, and what the commands of the workloads share: each runs one cell in a session of its own."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import client_for
from gateway.commands.options import AnyTenantOption, DataDirOption, TokenOption, UrlOption
from gateway.transcripts.clean import plain
from omniops_client import CellResult, Client, Finished, OmniopsError, Session
from omniops_client.types import Role

JsonOption = Annotated[bool, typer.Option("--json", help="The report alone, for programs.")]

#: Seconds that a work may take.
LONGEST_S = 86_400.0

_JSON = "application/json"
#: What such an output is as text.
_AS_TEXT = "<IPython.core.display.JSON object>"


def run_work(
    client: Client,
    tenant: str,
    call: str,
    *,
    title: str,
    role: Role = "operator",
    deadline_s: float = LONGEST_S,
    as_json: bool = False,
) -> dict[str, Any]:
    """Run `call`, lines of which the last one is the tool's call, as one cell of a session of its own.

    How far it is is shown on stderr, its report on stdout. Ctrl-C stops it; the same call goes on where it stopped.

    Returns the report. Raises typer.Exit (1) where it came to none, its reason shown; OmniopsError.
    """
    console = Console(stderr=True, highlight=False)
    *lines, last = call.strip().split("\n")
    code = "\n".join(["from IPython.display import JSON", *lines, f"JSON({last})"])
    with client.sessions.create(tenant, role=role, title=title) as session:
        console.print(f"session {session.id}", style="dim")
        result = _watched(session, code, deadline_s, console)
    if not result.ok:
        console.print(plain(result.envelope), markup=False)
        if result.status == "interrupted":
            console.print("Stopped. What was done stays done; the same command goes on from there.", style="yellow")
        raise typer.Exit(1)
    report: dict[str, Any] = next(
        output["data"][_JSON] for output in reversed(result.outputs) if _JSON in output.get("data", {})
    )
    print(json.dumps(report, indent=None if as_json else 2, ensure_ascii=False))
    return report


def _watched(session: Session, code: str, deadline_s: float, console: Console) -> CellResult:
    cell = "work"
    try:
        for event in session.stream(code, cell_id=cell, deadline_s=deadline_s):
            if isinstance(event, Finished):
                return event.result
            if event.text.strip() != _AS_TEXT:
                console.file.write(event.text)
                console.file.flush()
    except KeyboardInterrupt:
        with suppress(OmniopsError):
            session.cancel(cell)
            for event in session.follow(cell):
                if isinstance(event, Finished):
                    return event.result
        raise
    raise AssertionError("unreachable: a stream ends with its cell, or raises")


def show_work(
    tenant: AnyTenantOption = None,
    workload: Annotated[str | None, typer.Option(help="sync, ingest, report, gdpr.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Show runs of long work, the newest first: how far they are, what they took."""
    asked = {name: value for name, value in {"tenant": tenant, "workload": workload}.items() if value is not None}
    with client_for(data_dir, url, token, silence_s=60) as client:
        runs = client.get("/v1/work", {**asked, "limit": str(limit)})["runs"]
    if as_json:
        print(json.dumps(runs, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("started", "tenant", "tool", "state", "done", "rows", "calls", "seconds", "peak MiB", "session"):
        table.add_column(column)
    for each in runs:
        done = f"{each['done']:,}" + (f" of {each['total']:,}" if each["total"] is not None else "")
        table.add_row(
            each["started"][:19],
            escape(each["tenant"]),
            escape(each["tool"]),
            escape(f"{each['state']} {each['error']}".strip()),
            escape(f"{done} {each['unit']}".strip()),
            f"{each['rows']:,}",
            f"{each['calls']:,}",
            f"{each['seconds']:,.1f}",
            f"{each['peak_mb']:,.1f}",
            each["session"],
        )
    Console().print(table)
