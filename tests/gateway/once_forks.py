"""Gateways and kernels in processes of their own, killed (SIGKILL) at any point of a task's calls.

    python once_forks.py DATABASE_URL SHOP_URL FOLDER

One order a line on standard input, as JSON: {"task", "victim", "at"}; the victim is killed where the gateway passes
its point number `at`. One answer a line: {"passed": what it passed, [tool, point] each; "dead": the victim was killed;
"printed": what the cells came to; "journal"; "handed"}. Processes are forked from this one, which has imported
everything and has no threads: a kill takes 0.2 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from crash_bench import Life, MortalJournal, WayToShop, settings_with
from retail_tasks import script_of, tasks_with_writes

from demo import tau
from demo.model.script import Script
from gateway.broker import Broker, Contexts
from gateway.broker.server import _Connection
from gateway.db import Database
from gateway.settings import BrokerSettings, DatabaseSettings, Settings
from gateway.tool_catalogue import Catalogue
from gateway.types import Boundary, CallRecord, Grant
from kernel_pool.sandbox.stubs import install
from servers.registry import load_registry

REGISTRY = load_registry()
GRANT = Grant(tenant="shop", principal="chat", session="s1", role="agent")


@dataclass
class Deadly(Life):
    """Kills where the point of that number is passed; the first is 0."""

    number: int = -1
    victim: str = ""
    kernel: Path = Path()
    tool: str = ""
    told: list[tuple[str, str]] = field(default_factory=list)

    async def pass_by(self, point: str) -> None:
        self.die_at(point)

    def die_at(self, point: str) -> None:
        self.told.append((self.tool, point))
        if len(self.told) - 1 != self.number:
            return
        if self.victim in ("kernel", "both"):
            os.kill(int(self.kernel.read_text()), signal.SIGKILL)
        if self.victim in ("gateway", "both"):
            os.kill(os.getpid(), signal.SIGKILL)

    async def observe(self, boundary: Boundary, record: CallRecord) -> None:
        self.tool = record.tool
        await self.pass_by(boundary)


@dataclass(frozen=True)
class Place:
    """Where everything is."""

    database: str
    settings: Settings
    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "broker.sock"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel.pid"


async def gateway(place: Place, life: Deadly, *, resume: bool, ready: int, stop: int) -> None:
    """Listens until it is told to stop, or killed."""
    database = Database(place.database, DatabaseSettings(pool_size=2))
    await database.open()

    transport = WayToShop(httpx.AsyncHTTPTransport(), life)

    class Journal(MortalJournal):
        async def claim(self, key: Any, *rest: Any, **how: Any) -> Any:
            life.tool, transport.writes = key.tool, 0
            return await super().claim(key, *rest, **how)

    answer = _Connection.send

    def answered(connection: _Connection, *pieces: bytes | memoryview) -> None:
        answer(connection, *pieces)
        life.die_at("answered")

    _Connection.send = answered  # type: ignore[method-assign]
    async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
        journal, contexts = Journal(database, life), Contexts(place.settings, database, http)
        broker = Broker(Catalogue(REGISTRY), journal, contexts, BrokerSettings(), [life.observe])
        await broker.begin_cell(GRANT.session, "c1", resume=resume)
        await broker.arm(place.socket, GRANT)
        os.write(ready, b".")
        await asyncio.get_running_loop().run_in_executor(None, os.read, stop, 1)
        await broker.end_cell(GRANT.session)
        await broker.close()
    await database.close()
    (place.folder / "passed.json").write_text(json.dumps(life.told))


def kernel(place: Place, script: Script) -> None:
    """The task's cells, as one: each goes on where the one before was refused."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "servers"]:
        del sys.modules[name]
    install(*(str(place.folder / name) for name in ("tools.json", "broker.sock", "broker.json")))
    space: dict[str, Any] = {}
    printed = []
    for step in script.steps:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            try:
                exec(step.code, space)
            except Exception as error:  # noqa: BLE001 - what the shop refuses is among the steps
                print(type(error).__name__, error)
        printed.append(shown.getvalue())
    (place.folder / "printed.json").write_text(json.dumps(printed))


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


class Stage:
    """One task after the other on a fresh journal and a fresh shop."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._database = psycopg.connect(place.database, autocommit=True)
        self._tasks = {task.id: task for task in (*tasks_with_writes(), *tau.load_tasks())}
        (place.folder / "tools.json").write_bytes(REGISTRY.index())
        (place.folder / "broker.json").write_text('{"patience_s": 120}')

    def play(self, task: str, victim: str = "", at: int = -1) -> dict[str, Any]:
        self._database.execute("DELETE FROM request; DELETE FROM call; DELETE FROM handover; DELETE FROM session")
        self._database.execute(
            "INSERT INTO session (id, tenant, principal, role, state) VALUES ('s1', 'shop', 'chat', 'agent', 'live')"
        )
        script = script_of(self._tasks[task])
        life = Deadly(number=at, victim=victim, kernel=self.place.kernel)
        gateway, stop = self._gateway(life, resume=False)
        worker = self._kernel(script)
        if victim in ("gateway", "both"):
            assert _killed(gateway)
            os.close(stop)
        dead = True
        if victim in ("kernel", "both"):
            dead = _killed(worker)  # it may have come to its end, where it had its last answer
            if victim == "kernel":
                _stop(gateway, stop)
            self._database.execute("DELETE FROM request")  # as the row of a cell that runs again does it
        if victim:
            gateway, stop = self._gateway(Deadly(), resume=victim == "gateway")
        if victim in ("kernel", "both"):
            worker = self._kernel(script)
        _, status = os.waitpid(worker, 0)
        assert status == 0
        _stop(gateway, stop)
        found = {name: json.loads((self.place.folder / f"{name}.json").read_text()) for name in ("passed", "printed")}
        rows = self._database.execute("SELECT tool, args::text, occurrence, state FROM call ORDER BY id").fetchall()
        handed = self._database.execute("SELECT summary FROM handover").fetchall()
        return {**found, "dead": dead, "journal": rows, "handed": handed}

    def _gateway(self, life: Deadly, *, resume: bool) -> tuple[int, int]:
        """Its process, and the pipe that it hears of its end by."""
        is_ready, ready = os.pipe()
        stop, told = os.pipe()

        def work() -> None:
            os.close(told)
            asyncio.run(gateway(self.place, life, resume=resume, ready=ready, stop=stop))

        pid = fork(work)
        os.close(ready)
        os.close(stop)
        assert os.read(is_ready, 1) == b"."
        os.close(is_ready)
        return pid, told

    def _kernel(self, script: Script) -> int:
        # Waits for its number to be written: it may be killed at its first call.
        go, begin = os.pipe()

        def work() -> None:
            os.read(go, 1)
            kernel(self.place, script)

        pid = fork(work)
        self.place.kernel.write_text(str(pid))
        os.write(begin, b".")
        os.close(go)
        os.close(begin)
        return pid


def _killed(pid: int) -> bool:
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _stop(pid: int, told: int) -> None:
    os.close(told)
    _, status = os.waitpid(pid, 0)
    assert status == 0


def main() -> None:
    database, shop, folder = sys.argv[1:]
    stage = Stage(Place(database, settings_with(shop), Path(folder)))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(stage.play(**json.loads(line)), default=str), flush=True)


if __name__ == "__main__":
    main()
