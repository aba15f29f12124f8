"""What a cell that prints a gigabyte costs the gateway's memory, with all of it in the transcript."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.support import figure_of
from gateway.runtime import Gateway, open_gateway
from gateway.settings import load_settings
from gateway.transcripts.output_file import folder_of, read_outputs
from gateway.transcripts.verify import verify

IDS = ("output_1gb_peak_mb",)

#: Lines of 100 bytes, numbered: a line that is lost, or there twice, shows.
_LINES = 10_000_000
_CODE = "filler = 'x' * 89\nfor n in range({lines}): print(f'{{n:09}} {{filler}}')"
_PEER_PART = 16
_PEER = f"nbclient, growth with {1000 // _PEER_PART} MB"


def run(ids: set[str]) -> list[Figure]:
    """Measure it. Takes minutes, and 1 GB of disk."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ours = asyncio.run(_measure(Path(folder)))
        command = [sys.executable, "-m", "benchmarks.outputs"]
        peer = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return [figure_of("output_1gb_peak_mb", ours, "MB", peer, _PEER)]


async def _measure(folder: Path) -> float:
    settings = load_settings(
        data_dir=folder / "data",
        runtime_dir=folder / "run",
        log_level="error",
        pool={"provisioner": "local", "warm": 1},
        tenants={"shop": {}},
        cell={"deadline_s": 1800},
        transcripts={"free_mb": 0},
    )
    async with open_gateway(settings) as gateway:
        session = (await gateway.sessions.create("shop", "bench", "agent")).id
        await gateway.sessions.run_cell(session, _CODE.format(lines=200_000))  # what the first of its kind loads
        before = _reset_peak()
        started = time.perf_counter()
        run = await gateway.sessions.run_cell(session, _CODE.format(lines=_LINES))
        seconds, grown = time.perf_counter() - started, _peak_mb() - before
        if (run.result.status, run.result.dropped_bytes) != ("ok", 0) or run.spool is None:
            lost = f"{run.result.dropped_bytes:,} bytes lost"
            raise RuntimeError(f"the cell ended with {run.result.status}, {lost}: {run.result.reason}")
        await asyncio.to_thread(_check, gateway, session, run.spool.file)
    print(f"1 GB in {seconds:.0f} s, {_LINES / seconds / 10_000:.0f} MB/s; whole and verified")
    return grown


def _check(gateway: Gateway, session: str, name: str) -> None:
    """All lines are there, and nobody has changed any."""
    path = gateway.transcripts.find(session)
    found = verify(path, None, compare=False)
    if not found.ok:
        raise RuntimeError(f"the transcript does not verify: {found.problems}")
    number, rest, filler = 0, "", "x" * 89
    for output in read_outputs(folder_of(path) / name):
        *lines, rest = (rest + output["text"]).split("\n")
        for line in lines:
            if line != f"{number:09} {filler}":
                raise RuntimeError(f"line {number} is {line!r}")
            number += 1
    if (number, rest) != (_LINES, ""):
        raise RuntimeError(f"{number} lines are there, of {_LINES}")


def _peer() -> float:
    """How much nbclient grows by a cell that prints less."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(_CODE.format(lines=_LINES // _PEER_PART))])
    before = _reset_peak()
    NotebookClient(notebook, timeout=900).execute()
    return _peak_mb() - before


def _reset_peak() -> float:
    """From now on the peak is of what comes (proc(5), clear_refs); memory at present, MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mb("VmRSS")


def _peak_mb() -> float:
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(_peer())
