"""`omniops`: serve, chat, transcripts, load, doctor, kernelspec, tools, mcp, credentials, keys, audit, workloads."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from gateway.client import client_for
from gateway.commands.approvals import app as approvals
from gateway.commands.approvals import calls
from gateway.commands.audit import show_audit
from gateway.commands.credentials import app as credentials
from gateway.commands.gdpr import app as gdpr
from gateway.commands.handovers import app as handovers
from gateway.commands.ingest import ingest
from gateway.commands.keys import app as keys
from gateway.commands.load import load
from gateway.commands.mcp import app as mcp
from gateway.commands.options import DataDirOption, TenantOption, TokenOption, UrlOption
from gateway.commands.report import report
from gateway.commands.savings import show_savings
from gateway.commands.schedules import show_schedules
from gateway.commands.sync import sync
from gateway.commands.tools import app as tools
from gateway.commands.transcripts import app as transcripts
from gateway.commands.work import show_work
from gateway.settings import SettingsError, load_settings
from gateway.terminal import TurnView
from gateway.transcripts.errors import TranscriptError
from omniops_client import OmniopsError

app = typer.Typer(
    help="Sandboxed Jupyter kernels with a shop's tools, and an agent that works in them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(transcripts, name="transcripts")
kernelspec = typer.Typer(
    help="Sandboxed kernels for any Jupyter client. Needs no running gateway.", no_args_is_help=True
)
app.add_typer(kernelspec, name="kernelspec")
app.add_typer(tools, name="tools")
app.add_typer(mcp, name="mcp")
app.add_typer(approvals, name="approvals")
app.add_typer(calls, name="calls")
app.add_typer(credentials, name="credentials")
app.add_typer(keys, name="keys")
app.add_typer(gdpr, name="gdpr")
app.add_typer(handovers, name="handovers")
app.command("audit")(show_audit)
app.command("load")(load)
app.command("report")(report)
app.command("work")(show_work)
app.command("savings")(show_savings)
app.command("schedules")(show_schedules)
app.command("sync")(sync)
app.command("ingest")(ingest)


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
    logs.configure(settings.log_level, Scrubber(secrets_of(settings)), settings.log_format)

    def ready(gateway: Gateway, running: Running) -> None:
        logs.configure(settings.log_level, gateway.scrubber, settings.log_format)
        tenants = ", ".join(sorted(settings.tenants)) or "none yet: add [tenants.NAME] to omniops.toml"
        lines = [
            "omniops is ready.",
            f"  URL        {running.url}/?token={running.token}",
            f"  tenants    {tenants}",
            f"  isolation  {gateway.isolation}",
            f"  data       {gateway.data_dir.path}",
            *(gateway.first_key.told(running.url) if gateway.first_key else ()),
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
    token: TokenOption = None,
) -> None:
    """Put a customer's message to the agent of a running gateway, and watch its steps."""
    console = Console()
    view = TurnView(console)
    with client_for(data_dir, url, token, silence_s=120) as client:
        for event in client.chat.stream(tenant, question, session=session, mode=mode):
            view.show(event)
    if view.session:
        console.print(f"session {view.session}", style="dim", highlight=False)
    if view.reason not in ("answered", "paused"):
        raise typer.Exit(1)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False, data_dir: DataDirOption = None
) -> None:
    """Try every part of every kind of sandbox on this machine, and say what is missing and how to get it.

    Needs no running gateway and no root. Ends with 0 when the gateway could start with its configuration, else 1.
    """
    from gateway.doctor import diagnose, show

    diagnosis = asyncio.run(diagnose(load_settings(data_dir=data_dir)))
    if as_json:
        print(json.dumps(diagnosis.to_json(), indent=2))
    else:
        show(Console(), diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


@kernelspec.command("install")
def install_kernelspecs(
    user: Annotated[bool, typer.Option("--user", help="For this user alone.")] = False,
    sys_prefix: Annotated[
        bool, typer.Option("--sys-prefix", help="For this Python environment (the default).")
    ] = False,
    prefix: Annotated[Path | None, typer.Option(help="Below this folder: share/jupyter/kernels.")] = None,
) -> None:
    """Write a kernelspec for each profile of the configuration, over those that are there."""
    from gateway.kernels import choice_of
    from gateway.kernelspecs import install

    if user + sys_prefix + (prefix is not None) > 1:
        raise typer.BadParameter("Of --user, --sys-prefix and --prefix one at most can be given.")
    folder = None if user else str(prefix.absolute() if prefix else sys.prefix)
    settings = load_settings()
    choice = asyncio.run(choice_of(settings))
    for spec in install(settings, choice, user=user, prefix=folder):
        print(f"{spec.name:24} {spec.folder}")
    print(f"Kernels run in: {choice}")


@kernelspec.command("list")
def list_kernelspecs() -> None:
    """List our kernelspecs that Jupyter finds from here."""
    from gateway.kernelspecs import installed

    for spec in installed():
        print(f"{spec.name:24} {spec.provisioner:15} {spec.folder}")


@kernelspec.command("remove")
def remove_kernelspecs(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones.", show_default="all of ours")] = None,
) -> None:
    """Remove kernelspecs that `install` wrote."""
    from gateway.kernelspecs import remove

    for spec in remove(names or []):
        print(f"removed {spec.folder}")


def main() -> None:
    """The command line's entry: what went wrong is said in a line, not in a traceback."""
    from gateway.db import DatabaseError
    from gateway.kernelspecs import KernelspecError
    from gateway.postgres import PostgresError
    from gateway.start_error import StartError
    from kernel_pool.types import KernelPoolError

    try:
        app()
    except (
        SettingsError,
        StartError,
        OmniopsError,
        TranscriptError,
        KernelspecError,
        KernelPoolError,
        DatabaseError,
        PostgresError,
    ) as error:
        print(f"omniops: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
