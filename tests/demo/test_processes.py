"""Whatever the demo starts is gone when it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.processes import Processes, ProcessFailed

#: Starts a process in a session of its own that does not end when asked to, tells its id, and waits.
STUBBORN = """
import os, signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.read(1)
print(child.pid, flush=True)
time.sleep(300)
"""


def gone(pid: int) -> bool:
    """Not running any more; one that nobody has waited for yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def told(log: Path) -> int:
    while not log.exists() or not log.read_text().strip():
        time.sleep(0.02)
    return int(log.read_text())


def start_stubborn(processes: Processes, logs: Path) -> tuple[int, int]:
    process = processes.start("stubborn", [sys.executable, "-c", STUBBORN], os.environ)
    return process.handle.pid, told(logs / "stubborn.log")


def test_orphans_that_ignore_sigterm_are_gone_too(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        pids = start_stubborn(processes, tmp_path)
        assert not any(gone(pid) for pid in pids)
    assert all(gone(pid) for pid in pids)


def test_a_failure_inside_stops_them_as_well(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail() -> None:
        with Processes(tmp_path) as processes:
            pids.extend(start_stubborn(processes, tmp_path))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_children_that_others_started_are_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as other:
        with Processes(tmp_path) as processes:
            start_stubborn(processes, tmp_path)
        assert other.poll() is None
        other.kill()


def test_a_process_that_ends_by_itself_is_reported_with_its_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        process = processes.start(
            "brief", [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"], os.environ
        )
        process.handle.wait()
        with pytest.raises(ProcessFailed, match=r"brief ended with status 3(.|\n)*no such table"):
            processes.check()


def test_a_run_that_takes_too_long_is_a_failure(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes, pytest.raises(ProcessFailed, match=r"not done within 0\.2 s"):
        processes.run("slow", [sys.executable, "-c", "import time; time.sleep(300)"], os.environ, timeout_s=0.2)


def test_children_are_asked_to_end_when_the_demo_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from demo.processes import Processes\n"
        f"with Processes(Path({str(tmp_path)!r})) as p:\n"
        "    told = 'import os, time; print(os.getpid(), flush=True); time.sleep(300)'\n"
        "    p.start('child', [sys.executable, '-c', told], os.environ)\n"
        "    time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as demo:
        child = told(tmp_path / "child.log")
        demo.send_signal(signal.SIGKILL)
        demo.wait()
    deadline = time.monotonic() + 20
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(child)
