"""`omniops doctor`: whether this machine gives what the gateway is configured to need."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.kernels import choice_of, docker_of
from gateway.postgres import EmbeddedPostgres, PostgresConfig, PostgresError
from gateway.settings import Settings
from kernel_pool.doctor import Finding, examine, who, works
from kernel_pool.types import KernelPoolError

_MARKS = {"works": Text("works", "green"), "fails": Text("fails", "bold red"), "absent": Text("absent", "yellow")}


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what follows from them for this configuration."""

    findings: tuple[Finding, ...]
    #: `pool.provisioner` as it is set.
    configured: str
    #: Where kernels would run: "local", "docker runc" or "docker runsc"; "" when they could not.
    place: str
    #: One paragraph for people.
    verdict: str
    #: The gateway could start here.
    healthy: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "healthy": self.healthy,
            "configured": self.configured,
            "place": self.place,
            "verdict": self.verdict,
            "findings": [finding.to_json() for finding in self.findings],
        }


async def diagnose(settings: Settings) -> Diagnosis:
    """Try everything; some seconds. Nothing that is tried stays."""
    pool = settings.pool
    database = asyncio.create_task(_database(settings))
    found = await examine(docker_of(settings), uid=pool.uid_first, start_timeout_s=pool.start_timeout_s)
    findings = (*found, await database)
    try:
        choice = await choice_of(settings)
    except KernelPoolError as error:
        return Diagnosis(findings, pool.provisioner, "", f"Kernels cannot be started: {error}", healthy=False)
    verdict = f"Kernels run in: {choice}"
    if not works(found, choice.place):
        failed = next((item for item in found if item.place == choice.place and item.state == "fails"), None)
        verdict = f"Kernels would run in {choice.place!r}, but none starts there: {failed.found if failed else ''}"
        return Diagnosis(findings, pool.provisioner, choice.place, verdict, healthy=False)
    return Diagnosis(findings, pool.provisioner, choice.place, verdict, healthy=findings[-1].state == "works")


def show(console: Console, diagnosis: Diagnosis) -> None:
    """The findings as a table, the commands that would change them, then what follows."""
    table = Table(box=SIMPLE_HEAD, title=f"tried as {who()}", title_justify="left", pad_edge=False)
    for name in ("place", "part", "tried", "result", "found"):
        table.add_column(name, overflow="fold")
    before = ""
    for finding in diagnosis.findings:
        place, before = (finding.place if finding.place != before else ""), finding.place
        table.add_row(place, finding.part, finding.tried, _MARKS[finding.state], Text(finding.found))
    console.print(table)
    for remedy in dict.fromkeys(finding.remedy for finding in diagnosis.findings if finding.remedy):
        concerned = [f"{item.place}: {item.part}" for item in diagnosis.findings if item.remedy == remedy]
        console.print(Text.assemble(f"For {', '.join(concerned)}\n  ", (remedy, "bold")), soft_wrap=True)
    style = "green" if diagnosis.healthy else "bold red"
    console.print(Text(f"\n{diagnosis.verdict}", style), soft_wrap=True)


async def _database(settings: Settings) -> Finding:
    if settings.database_url is None:
        return await _embedded(settings)
    url, timeout_s = settings.database_url.get_secret_value(), settings.database.connect_timeout_s
    tried = "connect, look for pgvector"
    try:
        async with asyncio.timeout(timeout_s):
            connection = await psycopg.AsyncConnection.connect(url)
            async with connection:
                row = await (
                    await connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
                ).fetchone()
    except (OSError, psycopg.Error) as error:
        text = str(error).strip() or f"no answer in {timeout_s:g} s"
        return Finding("database", "DATABASE_URL", tried, "fails", text, "Start it, or correct DATABASE_URL.")
    if row is None:
        return Finding("database", "pgvector", tried, "fails", "the server does not have it", "Install pgvector there.")
    return Finding("database", "DATABASE_URL", tried, "works")


async def _embedded(settings: Settings) -> Finding:
    limits = settings.database
    with tempfile.TemporaryDirectory(prefix="omniops-doctor-") as name:
        folder = Path(name)
        server = EmbeddedPostgres(
            PostgresConfig(folder, folder / "run", limits.uid, limits.start_timeout_s, limits.stop_timeout_s)
        )
        try:
            await server.start()
        except (PostgresError, OSError) as error:
            return Finding("database", "embedded Postgres", "make and start one", "fails", str(error))
        finally:
            await server.stop()
    return Finding("database", "embedded Postgres", "make and start one", "works")
