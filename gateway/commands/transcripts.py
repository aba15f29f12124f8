"""`omniops transcripts`: what happened, and whether it is still what was written."""

from __future__ import annotations

import getpass
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from gateway.client import client_for
from gateway.commands.options import AnyTenantOption, DataDirOption, JsonOption, TokenOption, UrlOption
from gateway.data_dir import DataDir
from gateway.settings import load_settings
from gateway.terminal import show_found, show_notebook, show_summaries
from gateway.transcripts.clean import clean_json, plain
from gateway.transcripts.diff import code_cells, differences
from gateway.transcripts.files import write_atomically
from gateway.transcripts.redaction import Redaction
from gateway.transcripts.store import Form, TranscriptStore, parse_notebook
from gateway.transcripts.verify import verify as verify_files
from omniops_client import Client

app = typer.Typer(help="What happened: list, search, read, verify.", no_args_is_help=True)

SessionArgument = Annotated[str, typer.Argument(metavar="ID", help="The session, or the beginning of its id.")]


@app.command("list")
def list_transcripts(tenant: AnyTenantOption = None, data_dir: DataDirOption = None) -> None:
    """List the sessions, the newest first. Needs no running gateway."""
    store = store_of(data_dir)
    found = store.summaries(tenant)
    if not found:
        print(f"No transcripts in {store.root}.")
        return
    show_summaries(Console(), found)


@app.command("show")
def show_transcript(session: SessionArgument, data_dir: DataDirOption = None) -> None:
    """Show a session from its first message to its last. Needs no running gateway."""
    store = store_of(data_dir)
    path = store.find(session)
    console = Console()
    show_notebook(console, parse_notebook(store.notebook(path), path))
    console.print(f"\n{path}\nOpen it in Jupyter: jupyter lab {path}", style="dim", highlight=False, soft_wrap=True)


@app.command()
def search(
    tenant: AnyTenantOption = None,
    since: Annotated[datetime | None, typer.Option(help="Sessions that went on after this time (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Sessions that began before this time (UTC).")] = None,
    tool: Annotated[str | None, typer.Option(help="That called it: server.name, or server.")] = None,
    error: Annotated[str | None, typer.Option(help="In which it came up, by name; `any` for any.")] = None,
    cost_min: Annotated[float | None, typer.Option(min=0, help="That cost as much at least, US dollars.")] = None,
    cost_max: Annotated[float | None, typer.Option(min=0, help="That cost as much at most, US dollars.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most that are shown.")] = 100,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Find sessions, the newest first, through a running gateway."""
    asked: dict[str, object] = {"tenant": tenant, "tool": tool, "error": error, "limit": limit}
    asked |= {"cost_min": cost_min, "cost_max": cost_max}
    asked |= {"since": since and f"{since.isoformat()}Z", "until": until and f"{until.isoformat()}Z"}
    with client_for(data_dir, url, token, silence_s=60) as client:
        found = client.get("/v1/transcripts", {name: str(value) for name, value in asked.items() if value is not None})
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        show_found(Console(), found)
    else:
        print("No such sessions.")


@app.command()
def verify(
    session: Annotated[str | None, typer.Argument(metavar="ID", help="A session.", show_default="all")] = None,
    tenant: AnyTenantOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="The files alone, without a gateway: a record cut short is not found.")
    ] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Tell whether records and notebooks are, byte by byte, what was written. Ends with 1 where one is not.

    The gateway compares the end of each record with what its database knows.
    """
    found = _offline(session, tenant, data_dir) if offline else _online(session, tenant, data_dir, url, token)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _tell(Console(), found, offline)
    if not all(each["ok"] for each in found):
        raise typer.Exit(1)


def _offline(session: str | None, tenant: str | None, data_dir: Path | None) -> list[dict[str, Any]]:
    store = store_of(data_dir)
    paths = [store.find(session, tenant)] if session else list(store.files(tenant))
    return [msgspec.to_builtins(verify_files(path, None, compare=False)) for path in paths]


def _online(
    session: str | None, tenant: str | None, data_dir: Path | None, url: str | None, token: str | None
) -> list[dict[str, Any]]:
    with client_for(data_dir, url, token, silence_s=600) as client:
        ids = [session] if session else _all_ids(client, tenant)
        return [client.get(f"/v1/transcripts/{quote(each, safe='')}/verification") for each in ids]


def _all_ids(client: Client, tenant: str | None) -> list[str]:
    ids: list[str] = []
    narrow = {"tenant": tenant} if tenant else {}
    while True:
        page = client.get("/v1/transcripts", {"limit": "1000", "offset": str(len(ids))} | narrow)
        ids += [each["session"] for each in page]
        if len(page) < 1000:
            return ids


def _tell(console: Console, found: list[dict[str, Any]], offline: bool) -> None:
    for each in found:
        erased = f", {each['erased']} of them erased" if each["erased"] else ""
        state = "ok" if each["ok"] else "DAMAGED"
        line = f"{each['session']}  {each['tenant']}  {state}  {each['lines']} lines{erased}"
        console.print(Text(line, style="" if each["ok"] else "bold red"), soft_wrap=True)
        for problem in each["problems"]:
            console.print(Text(f"    {problem}", style="red"), soft_wrap=True)
    if offline:
        console.print("Without a gateway the ends of the records were not compared with the database.", style="yellow")
    if not found:
        print("No transcripts.")


def store_of(data_dir: Path | None) -> TranscriptStore:
    """The transcripts of a data folder, to be read."""
    settings = load_settings(data_dir=data_dir)
    return TranscriptStore(DataDir(settings.data_dir).transcripts, Redaction(kinds=settings.transcripts.masked))


@app.command()
def export(
    session: SessionArgument,
    form: Annotated[Form, typer.Option("--format", "-f", help="jsonl: the record, nothing masked.")] = "html",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.", show_default="ID.FORMAT")] = None,
    outputs: Annotated[
        Path | None, typer.Option(help="Folder to copy the outputs of cells to that are too long for it.")
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write a session as a file to give away: a page that is safe to open, a notebook, or the record.

    Needs no running gateway. Personal data is masked as `transcripts.masked` says.
    """
    store = store_of(data_dir)
    path = store.find(session)
    content = store.export(path, form)
    target = out or Path(f"{path.stem}.{form}")
    write_atomically(target, content)
    print(f"{target}: {len(content):,} bytes")
    if outputs is not None:
        outputs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in store.all_outputs(path):
            shutil.copyfile(file, outputs / file.name)
            print(f"{outputs / file.name}: {file.stat().st_size:,} bytes")


@app.command()
def diff(
    before: SessionArgument,
    after: Annotated[str, typer.Argument(metavar="OTHER", help="Another session.")],
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Tell where the cells of two sessions differ, in code, status and outputs. Ends with 1 where they do.

    Needs no running gateway. Execution counts are not compared, nor how a stream was cut into outputs.
    """
    store = store_of(data_dir)
    cells = []
    for session in (before, after):
        cells.append(code_cells(store.cells(store.find(session))))
    found = clean_json(msgspec.to_builtins(differences(cells[0], cells[1])), store.redaction.personal)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show_differences(Console(), found, sum(map(len, cells)) // 2)
    if found:
        raise typer.Exit(1)


@app.command()
def replay(
    session: SessionArgument,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Run a session's cells in a new kernel and tell where outputs differ; ends with 1 where they do.

    Tool calls are answered from the journal of the running gateway; none goes out. Execution counts are not compared,
    nor how a stream was cut into outputs.
    """
    with client_for(data_dir, url, token, silence_s=None) as client:
        found = client.post(f"/v1/transcripts/{quote(session, safe='')}/replay")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for each in found["cells"]:
            told = "same" if each["same"] else "DIFFERS"
            more = f" ({', '.join(each['what'])})" if each["what"] else ""
            calls = f", {each['answered']} calls answered, {each['refused']} refused"
            Console().print(Text(f"cell {each['index']} {each['cell']}: {told}{more}{calls}"), soft_wrap=True)
            for line in each["lines"]:
                Console().print(Text(plain(f"    {line}"), style="dim"), soft_wrap=True)
    if not found["same"]:
        raise typer.Exit(1)


@app.command()
def erase(
    session: Annotated[str, typer.Argument(metavar="ID", help="The session. It has to have ended.")],
    reason: Annotated[str, typer.Option(help="Why; it goes on the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Remove what a session said and made, for good. Its record stays as tombstones, and still verifies."""
    if not yes:
        typer.confirm(f"Erase session {session}? It cannot be taken back.", abort=True)
    asked = {"reason": reason, "by": getpass.getuser()}
    with client_for(data_dir, url, token, silence_s=120) as client:
        found = client.delete(f"/v1/transcripts/{quote(session, safe='')}", asked)
    print(f"{found['session']}: the contents of {found['erased']} lines are gone.")


def _show_differences(console: Console, found: list[dict[str, Any]], cells: int) -> None:
    for each in found:
        ids = " / ".join(each[side] or "none" for side in ("before", "after"))
        console.print(Text(f"cell {each['number']} ({ids}): {', '.join(each['what'])}", style="bold"), soft_wrap=True)
        for line in each["lines"]:
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            console.print(Text(plain(f"    {line}"), style=style), soft_wrap=True)
    if not found:
        print(f"No differences in {cells} cells.")
