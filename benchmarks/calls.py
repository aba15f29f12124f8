"""What a tool call costs as its cell waits for it: a small one, the journal's share of it, a table, a long stream.

Each is measured in rounds, the floor or peer too, and the median of the quietest round counts: on a machine with two
cores anything else that runs is in the others.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.call_tools import STREAMED, lines, registry
from benchmarks.figure import Figure, quantile
from benchmarks.support import figure_of
from gateway.broker import Broker, Journal
from gateway.broker.behind import Read, WriteBehind
from gateway.broker.journal import Row
from gateway.broker.keys import CallKey
from gateway.broker.spent import Spent
from gateway.runtime import Gateway, open_gateway
from gateway.settings import load_settings
from gateway.types import CallState, Grant
from servers.table import to_ipc

IDS = ("tool_call_p50_ms", "journal_ms", "journal_read_ms", "rows_100k_ms", "stream_1m_peak_mb")

_ROUNDS, _CALLS, _TABLES = 5, 400, 5

#: Milliseconds of each call of `{statement}`, printed; the first calls are left out.
_TIMED = """
import json, time
from servers.call_tools import {tool}
times = []
for n in range({count} + {warm}):
    began = time.perf_counter()
    {statement}
    times.append((time.perf_counter() - began) * 1000)
    time.sleep({pause})
print(json.dumps(times[{warm}:]))
"""

#: The same from a process outside: argv is the socket, the tool, and how many calls.
_CLIENT = """
import json, sys, time
from kernel_pool.sandbox.client import BrokerClient
path, tool, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
client, times = BrokerClient(path), []
for n in range(count):
    began = time.perf_counter()
    client.call(tool, {"value": n})
    times.append((time.perf_counter() - began) * 1000)
print(json.dumps(times[count // 5:]))
"""

#: Answers every message by itself.
_ECHO = """
import socket, sys
connection = socket.socket(fileno=int(sys.argv[1]))
while message := connection.recv(4096):
    connection.sendall(message)
"""

_STREAMED = """
from servers.call_tools import stream
count = 0
for part in stream():
    count += len(part)
print(count)
"""


def run(ids: set[str]) -> list[Figure]:
    """Measure what is asked for, with one gateway."""
    return asyncio.run(_measure(ids))


async def _measure(ids: set[str]) -> list[Figure]:
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        settings = load_settings(
            data_dir=folder / "data",
            runtime_dir=folder / "run",
            log_level="error",
            pool={"provisioner": "local", "warm": 1},
            cell={"deadline_s": 300},
            broker={"calls_per_cell": 10_000, "calls_per_session": 1_000_000, "result_mb": 64, "cell_mb": 4096},
            agent={"everyday_tools": ()},
            tenants={"shop": {}},
        )
        async with open_gateway(settings, registry=registry()) as gateway:
            session = (await gateway.sessions.create("shop", "bench", "operator")).id
            if "tool_call_p50_ms" in ids:
                found.append(await _small(gateway, session))
            if ids & {"journal_ms", "journal_read_ms"}:
                found += await _journal(gateway, folder)
            if "rows_100k_ms" in ids:
                found.append(await _table(gateway, session))
            if "stream_1m_peak_mb" in ids:
                found.append(await _stream(gateway, session))
    return found


async def _small(gateway: Gateway, session: str) -> Figure:
    cell = _TIMED.format(tool="echo", statement="echo(value=n)", count=_CALLS, warm=50, pause=0)
    value = await _quietest(gateway, session, cell)
    floor = min([quantile(await asyncio.to_thread(_round_trips), 0.5) for _ in range(_ROUNDS)])
    peer = "as many bytes to another process and back, by a bare unix socket"
    return figure_of("tool_call_p50_ms", value, "ms", floor, peer)


def _round_trips() -> list[float]:
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen([sys.executable, "-c", _ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()]):
        theirs.close()
        times = []
        for _ in range(_CALLS):
            began = time.perf_counter()
            ours.sendall(b"x" * 70)
            ours.recv(4096)
            times.append((time.perf_counter() - began) * 1000)
        ours.shutdown(socket.SHUT_WR)
    return times[_CALLS // 5 :]


async def _journal(gateway: Gateway, folder: Path) -> list[Figure]:
    """The same calls by two brokers, of which one keeps no journal; in turns, as a machine's speed is not steady."""
    found: dict[tuple[str, type[Journal]], list[float]] = {}
    for turn in range(_ROUNDS):
        for journal in (Journal(gateway.database), _NoJournal(gateway.database)):
            for tool in ("echo", "note"):
                times = await _by_broker(gateway, journal, folder, tool, f"j{turn}")
                found.setdefault((tool, type(journal)), []).append(quantile(times, 0.5))
    commit = min([await _commits(gateway) for _ in range(_ROUNDS)])
    write, read = (min(found[tool, Journal]) - min(found[tool, _NoJournal]) for tool in ("note", "echo"))
    return [
        figure_of("journal_ms", write, "ms", commit, "one row's commit to disk: a write waits for some"),
        figure_of("journal_read_ms", read, "ms", commit, "one row's commit to disk: a read waits for none"),
    ]


async def _by_broker(gateway: Gateway, journal: Journal, folder: Path, tool: str, name: str) -> list[float]:
    name = f"{name}-{tool}-{type(journal).__name__}"
    door = folder / name / "broker.sock"
    door.parent.mkdir()
    broker = Broker(gateway.catalogue, journal, gateway.contexts, gateway.settings.broker)
    grant = Grant(tenant="shop", principal="bench", session=name, role="operator")
    await gateway.database.execute(
        "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, 'shop', 'bench', 'operator', 'live')",
        (name,),
    )
    try:
        await broker.arm(door, grant)
        await broker.begin_cell(name, "c1")
        command = [sys.executable, "-c", _CLIENT, str(door), f"call_tools.{tool}", str(_CALLS)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        printed, _ = await process.communicate()
        await broker.end_cell(name)
    finally:
        await broker.close()
    times: list[float] = json.loads(printed)
    return times


async def _commits(gateway: Gateway) -> float:
    """Milliseconds of one; the median."""
    await gateway.database.execute("CREATE TABLE IF NOT EXISTS bench_commit (value text)")
    times = []
    for _ in range(100):
        began = time.perf_counter()
        await gateway.database.execute("INSERT INTO bench_commit VALUES ('a row')")
        times.append((time.perf_counter() - began) * 1000)
    return quantile(times, 0.5)


class _NoReads(WriteBehind):
    async def put(self, read: Read) -> None:
        pass


class _NoJournal(Journal):
    """Remembers nothing."""

    def __init__(self, database: Any) -> None:
        super().__init__(database)
        self.reads = _NoReads(database.dedicated)
        self._now = datetime.now(UTC)

    async def claim(
        self,
        key: CallKey,
        grant: Grant,
        effect: Any,
        args: str,
        request: str = "",
        *,
        at_once: bool = False,
        fence: int | None = None,
    ) -> Row:
        return Row(1, fresh=True, state="executing", result=None, error=None, started=self._now, ended=None)

    async def executing(self, row: Row, session: str = "", fence: int | None = None) -> None:
        pass

    async def finish(self, row: Row, state: CallState, **_: Any) -> tuple[datetime, datetime]:
        return self._now, self._now

    async def keys(self, session: str, cell: str) -> frozenset[CallKey]:
        return frozenset()

    async def spent(self, session: str) -> Spent:
        return Spent()


async def _table(gateway: Gateway, session: str) -> Figure:
    """A pause after each: the journal of one call is not to be in the next."""
    by_arrow = _TIMED.format(tool="table", statement="frame = table()", count=_TABLES, warm=1, pause=0.2)
    rows = "import pandas\n" + _TIMED.format(
        tool="rows", statement="frame = pandas.DataFrame(rows())", count=1, warm=0, pause=0.2
    )
    value, peer = await _quietest(gateway, session, by_arrow), await _quietest(gateway, session, rows)
    return figure_of("rows_100k_ms", value, "ms", peer, "the same rows as JSON")


async def _stream(gateway: Gateway, session: str) -> Figure:
    """Growth of the resident memory of gateway and kernel, from the second reading of the stream to the next."""
    kernel = gateway.sessions.kernel(session)
    if kernel is None:
        raise RuntimeError("a session has no kernel")
    await _printed(gateway, session, _STREAMED)
    with _peak(kernel.pid) as at_kernel, _peak("self") as at_gateway:
        if (read := await _printed(gateway, session, _STREAMED)) != f"{STREAMED}\n":
            raise RuntimeError(f"read {read} rows")
    whole = len(to_ipc(lines(STREAMED))) / 1e6
    peer = "all the rows, as Arrow has them; a batch has a hundredth of them"
    return figure_of("stream_1m_peak_mb", at_kernel[0] + at_gateway[0], "MB", whole, peer)


@contextmanager
def _peak(pid: int | str) -> Iterator[list[float]]:
    """By how much the process's resident memory grows meanwhile, at most, in MB."""
    over, most = threading.Event(), [0.0]

    def resident() -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def look(before: int) -> None:
        while not over.wait(0.001):
            most[0] = max(most[0], (resident() - before) / 1e6)

    looking = threading.Thread(target=look, args=(resident(),))
    looking.start()
    try:
        yield most
    finally:
        over.set()
        looking.join()


async def _quietest(gateway: Gateway, session: str, cell: str) -> float:
    """The least median of some rounds of a cell that prints times."""
    return min([quantile(json.loads(await _printed(gateway, session, cell)), 0.5) for _ in range(_ROUNDS)])


async def _printed(gateway: Gateway, session: str, cell: str) -> str:
    run = await gateway.sessions.run_cell(session, cell)
    if run.result.status != "ok":
        raise RuntimeError(f"a cell ended with {run.result.status}: {run.result.reason or run.result.error}")
    return "".join(str(each["text"]) for each in run.result.outputs if each.get("name") == "stdout")
