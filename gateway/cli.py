"""`omniops`: serve, chat, transcripts, load."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from gateway.client import ClientError, GatewayClient
from gateway.data_dir import DataDir
from gateway.settings import SettingsError, load_settings
from gateway.terminal import TurnView, show_notebook, show_summaries
from gateway.transcripts.store import TranscriptError, TranscriptStore, read_notebook

app = typer.Typer(
    help="Sandboxed Jupyter kernels with a shop's tools, and an agent that works in them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
transcripts = typer.Typer(help="Read what happened. Needs no running gateway.", no_args_is_help=True)
app.add_typer(transcripts, name="transcripts")

DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="The gateway's data folder.", show_default=".omniops")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="The gateway.", show_default="OMNIOPS_CLIENT__URL, or the one on the data folder"),
]
ClientTokenOption = Annotated[
    str | None, typer.Option("--token", help="Its access token.", show_default="OMNIOPS_CLIENT__TOKEN, or as it runs")
]
TenantOption = Annotated[str, typer.Option("--tenant", "-t", help="The shop, as the configuration names it.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.", show_default="8765")] = None,
    token: Annotated[str | None, typer.Option(help="Access token.", show_default="made once and kept")] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM.

    Everything else is set in omniops.toml or by OMNIOPS_... variables; docs/configuration.md lists them.
    """
    from gateway import logs
    from gateway.broker.scrub import Scrubber, secrets_of
    from gateway.data_dir import Running
    from gateway.runtime import Gateway
    from gateway.serve import serve as run

    given = {"host": host, "port": port, "token": token}
    server = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(data_dir=data_dir, server=server or None)
    logs.configure(settings.log_level, Scrubber(secrets_of(settings)))

    def ready(gateway: Gateway, running: Running) -> None:
        logs.configure(settings.log_level, gateway.scrubber)
        tenants = ", ".join(sorted(settings.tenants)) or "none yet: add [tenants.NAME] to omniops.toml"
        lines = [
            "omniops is ready.",
            f"  URL        {running.url}/?token={running.token}",
            f"  tenants    {tenants}",
            f"  isolation  {gateway.isolation}",
            f"  data       {gateway.data_dir.path}",
            "Stop it with Ctrl-C.",
        ]
        print("\n".join(lines), flush=True)

    asyncio.run(run(settings, ready))


@app.command()
def chat(
    question: Annotated[str, typer.Argument(help="What the customer says.")],
    tenant: TenantOption,
    session: Annotated[str | None, typer.Option("--session", "-s", help="Continue this conversation.")] = None,
    mode: Annotated[
        Literal["cells", "direct"] | None, typer.Option(help="Cells in a kernel, or direct tool calls.")
    ] = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: ClientTokenOption = None,
) -> None:
    """Put a customer's message to the agent of a running gateway, and watch its steps."""
    console = Console()
    view = TurnView(console)
    body = {"tenant": tenant, "message": question, "session": session, "mode": mode}
    with _client(data_dir, url, token, silence_s=120) as client:
        for event in client.events("/v1/chat", {name: value for name, value in body.items() if value is not None}):
            view.show(event)
    if view.session:
        console.print(f"session {view.session}", style="dim", highlight=False)
    if view.reason != "answered":
        raise typer.Exit(1)


@app.command()
def load(
    tenant: TenantOption, data_dir: DataDirOption = None, url: UrlOption = None, token: ClientTokenOption = None
) -> None:
    """Fill the product catalogue of a tenant from its store, through a running gateway."""
    with _client(data_dir, url, token, silence_s=None) as client:
        report = client.post(f"/v1/tenants/{tenant}/catalog")
    counts = ", ".join(f"{report[name]} {name}" for name in ("created", "updated", "unchanged", "deleted"))
    print(f"{report['products']} products, {report['variants']} variants ({counts}) in {report['seconds']:.1f} s")


@transcripts.command("list")
def list_transcripts(
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Of this tenant only.")] = None,
    data_dir: DataDirOption = None,
) -> None:
    """List the sessions, the newest first."""
    store = _transcripts(data_dir)
    found = store.summaries(tenant)
    if not found:
        print(f"No transcripts in {store.root}.")
        return
    show_summaries(Console(), found)


@transcripts.command("show")
def show_transcript(
    session: Annotated[str, typer.Argument(metavar="ID", help="The session, or the beginning of its id.")],
    data_dir: DataDirOption = None,
) -> None:
    """Show a session from its first message to its last."""
    path = _transcripts(data_dir).find(session)
    console = Console()
    show_notebook(console, read_notebook(path))
    console.print(f"\n{path}\nOpen it in Jupyter: jupyter lab {path}", style="dim", highlight=False, soft_wrap=True)


def main() -> None:
    """The command line's entry: what went wrong is said in a line, not in a traceback."""
    from gateway.runtime import StartError

    try:
        app()
    except (SettingsError, StartError, ClientError, TranscriptError) as error:
        print(f"omniops: {error}", file=sys.stderr)
        sys.exit(1)


def _transcripts(data_dir: Path | None) -> TranscriptStore:
    return TranscriptStore(DataDir(data_dir or load_settings().data_dir).transcripts)


def _client(data_dir: Path | None, url: str | None, token: str | None, *, silence_s: float | None) -> GatewayClient:
    """A client of the gateway that is named, or of the one that runs on the data folder."""
    settings = load_settings(data_dir=data_dir)
    url = url or (str(settings.client.url) if settings.client.url else None)
    token = token or (settings.client.token.get_secret_value() if settings.client.token else None)
    if url is None:
        folder = DataDir(settings.data_dir)
        running = folder.running()
        if running is None:
            raise ClientError(
                f"No gateway runs on the data folder {folder.path}. Start one (omniops serve), or name one "
                "with --url and --token."
            )
        return GatewayClient(running.url, token or running.token, read_timeout_s=silence_s)
    if token is None:
        raise ClientError("--url needs the gateway's access token: --token, or OMNIOPS_CLIENT__TOKEN.")
    return GatewayClient(url, token, read_timeout_s=silence_s)


if __name__ == "__main__":
    main()
