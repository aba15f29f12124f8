"""One gateway after the other on the same data, killed while a cell is under way."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import counting
import httpx
import psycopg
import warm_process
from gateway_world import environment, notebook_of, own_database

from gateway.db import Database
from gateway.settings import DatabaseSettings

CELL = """
from servers.counting import add, look
print("begin", flush=True)
before = look(name="a0")["total"]
add(name="a0", amount=1 + before)
print("middle", flush=True)
add(name="b0"); add(name="b0")
for number in range(5):
    print(number, flush=True)
made = kept + before
made
"""
SLOW = "import time\nfor i in range(60):\n    print(i, flush=True); time.sleep(0.25)"
OUTPUT = "begin\nmiddle\n0\n1\n2\n3\n4\n"


def cell_of(number: int) -> str:
    """The same for another session, on things of its own."""
    return CELL.replace("a0", f"a{number}").replace("b0", f"b{number}")


@dataclass
class World:
    """A data folder, a database, and one gateway after the other on them."""

    folder: Path
    database_url: str
    runtime: Path
    #: What its kernels run as, where they have users of their own.
    uids: range
    #: Where the kernels run, if not in sandboxes of this machine.
    place: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @contextmanager
    def gateway(self, point: str = "none", number: int = 0) -> Iterator[Doomed]:
        settings = environment(
            self.database_url,
            OMNIOPS_DATA_DIR=str(self.data),
            OMNIOPS_RUNTIME_DIR=str(self.runtime),
            OMNIOPS_SERVER__PORT="0",
            **{
                "OMNIOPS_POOL__UID_FIRST": str(self.uids.start),
                "OMNIOPS_POOL__UID_COUNT": str(len(self.uids)),
                "OMNIOPS_POOL__PROVISIONER": "local",
                **self.place,
            },
        )
        with (
            open(self.folder / "gateway.log", "a") as log,
            warm_process.start(
                "doomed_gateway:main",
                *(point, str(number)),
                env=settings,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, (self.folder / "gateway.log").read_text()
                url, token = line.split()
                yield Doomed(process, url, token)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(60)

    def effects(self, number: int) -> list[str]:
        with psycopg.connect(self.database_url) as connection:
            found = connection.execute("SELECT name FROM effect WHERE name LIKE %s", (f"_{number}",))
            return sorted(row[0] for row in found)

    def kernels(self) -> list[str]:
        """Folders of kernels that are leased: their broker sockets are there."""
        return [str(path) for path in self.runtime.rglob("broker.sock")]

    def left_over(self) -> list[str]:
        """Folders, sockets and processes that a gateway should not leave behind."""
        found = [str(path) for path in self.runtime.rglob("*")] if self.runtime.exists() else []
        return found + [f"process {pid}" for pid in processes_of(self.runtime, self.uids)]


def processes_of(runtime: Path, uids: range) -> list[str]:
    """Templates, by the log that they write, and kernels, by their users."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            log = os.readlink(process / "fd" / "2").startswith(str(runtime))
            if log or process.stat().st_uid in uids:
                found.append(process.name)
        except OSError:
            continue
    return found


@dataclass
class Doomed:
    process: warm_process.WarmProcess
    url: str
    token: str

    def http(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def run(self, session: str, code: str, **options: Any) -> dict[str, Any]:
        with self.http() as http:
            answer = http.post(f"/v1/sessions/{session}/cells", json={"code": code, **options})
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

    def session(self, session: str) -> dict[str, Any]:
        with self.http() as http:
            found: dict[str, Any] = http.get(f"/v1/sessions/{session}").json()
            return found

    def create(self) -> str:
        with self.http() as http:
            answer = http.post("/v1/sessions", json={"tenant": "shop"})
            assert answer.status_code == 201, answer.text
            return str(answer.json()["id"])

    def ended_cell(self, session: str, cell: str) -> dict[str, Any]:
        with self.http() as http:
            for _ in range(600):
                found: dict[str, Any] = http.get(f"/v1/sessions/{session}/cells/{cell}").json()
                if found.get("status") != "running":
                    return found
                time.sleep(0.1)
        raise AssertionError(f"the cell goes on: {found}")


async def migrated(url: str) -> None:
    database = Database(url, DatabaseSettings())
    await database.open()
    await database.close()


@contextmanager
def survival_world(postgres: str, folder: Path, **settings: str) -> Iterator[World]:
    """A world of its own, with a migrated database and an upstream that counts."""
    with own_database(postgres) as url, tempfile.TemporaryDirectory(prefix="omniops-") as short:
        (folder / "data").mkdir(mode=0o700)
        first = 800_000 + 1000 * secrets.randbelow(1000)
        made = World(folder, url, Path(short) / "run", range(first, first + 1000), settings)
        asyncio.run(migrated(url))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(counting.UPSTREAM.encode())
        yield made


def begin(gateway: Doomed, session: str, code: str, cell: str = "doomed") -> threading.Thread:
    """Run a cell and lose its stream when the gateway dies."""

    def post() -> None:
        try:
            gateway.run(session, code, cell_id=cell)
        except (httpx.HTTPError, AssertionError):
            return

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def text_of(outputs: list[dict[str, Any]]) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def check(world: World, gateway: Doomed, session: str, number: int) -> None:
    """The doomed cell has ended as it would have without any kill."""
    found = gateway.ended_cell(session, "doomed")
    assert found["status"] == "ok", found
    result = found["result"]
    assert text_of(result["outputs"]) == OUTPUT
    assert result["outputs"][-1]["data"]["text/plain"] == "41"
    assert world.effects(number) == [f"a{number}", f"b{number}", f"b{number}"]
    node = next(cell for cell in notebook_of(world.data, session).cells if cell.id == "doomed")
    record = node.metadata.omniops
    assert [(call.tool.split(".")[1], call.state, call.replayed) for call in record.calls] == [
        ("look", "applied", False),
        ("add", "applied", False),
        ("add", "applied", False),
        ("add", "applied", False),
    ]
    assert "earlier_runs" not in record
    assert "value:  (41, 41)" in gateway.run(session, "kept, made")["envelope"]
