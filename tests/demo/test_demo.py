"""The whole demo, as a user starts it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

#: What a run with everything started anew may take on a busy machine, seconds.
PATIENCE_S = 300
_PR_SET_CHILD_SUBREAPER = 36

pytestmark = pytest.mark.timeout(2 * PATIENCE_S)


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Whatever the demo leaves behind becomes a child of this process, which must have none more afterwards."""
    libc = ctypes.CDLL(None)
    before = children()
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
        left = children() - before
        told = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:200] for pid in left}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert told == {}
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def start(data_dir: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "demo", "--data-dir", str(data_dir), *options]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHONPATH"))}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=kept | environment, bufsize=1
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, problems = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, problems


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept from test to test, as a user's is from run to run."""
    return tmp_path_factory.mktemp("demo")


def results(out: str) -> Mapping[str, Any]:
    last = out.rstrip().splitlines()[-1]
    assert last.startswith("results: ")
    found: dict[str, Any] = json.loads(Path(last.removeprefix("results: ")).read_text())
    return found


def test_demo_runs_checks_and_reports_its_tasks(data_dir: Path) -> None:
    with nothing_left_behind():
        status, out, problems = finished(start(data_dir, "--tasks", "98,13,22"))
    assert (status, problems) == (0, "")
    assert out.count("shop ok") == 6
    assert "3 of 3 tasks left the shop as the reference does." in out
    found = results(out)
    assert [task["task"] for task in found["tasks"]] == ["98", "13", "22"]
    for task in found["tasks"]:
        assert task["cells"]["calls"] == task["direct"]["calls"] > 0
        assert task["cells"]["usage"]["results"] < task["direct"]["usage"]["results"]
        notebook = nbformat.read(Path(found["transcripts"]) / task["transcript"], as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
        assert sum(cell.cell_type == "code" for cell in notebook.cells) >= task["cells"]["steps"]


def test_direct_calls_cost_what_the_gateway_reckons_beside_the_cells(data_dir: Path) -> None:
    found = json.loads((data_dir / "results.json").read_text())
    for task in found["tasks"]:
        reckoned, measured = task["cells"]["direct_usage"], task["direct"]["usage"]
        assert reckoned["requests"] == measured["requests"]
        assert reckoned["definitions"] == measured["definitions"]
        assert reckoned["results"] == pytest.approx(measured["results"], rel=0.05)


def test_second_run_finds_its_catalogue_loaded(data_dir: Path) -> None:
    outs: list[str] = []
    # the shop keeps its address unless somebody has taken its port meanwhile; then all products have new links
    for _ in range(4):
        status, out, _ = finished(start(data_dir, "--tasks", "17"))
        assert status == 0
        outs.append(out)
        if len(outs) > 1 and re.search(r"products 50,.* updated 0, unchanged 50", out):
            return
    raise AssertionError(outs)


def test_interrupt_leaves_nothing_behind(data_dir: Path) -> None:
    with nothing_left_behind():
        with start(data_dir) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("step 2"):
                    break
            process.send_signal(signal.SIGINT)
            _, problems = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert problems == "Interrupted; everything is stopped.\n"


def test_gateway_that_cannot_start_is_shown_with_its_own_words(data_dir: Path) -> None:
    with nothing_left_behind():
        status, _, problems = finished(start(data_dir, "--tasks", "17", OMNIOPS_MODEL__TIMEOUT_S="soon"))
    assert status == 1
    assert "gateway ended with status" in problems
    assert "model.timeout_s" in problems.lower()


def test_unknown_task_is_named(data_dir: Path) -> None:
    status, _, problems = finished(start(data_dir, "--tasks", "0,999"))
    assert (status, problems) == (1, "The demo failed: There is no task 999; they are numbered 0 to 113.\n")


def test_a_real_model_is_asked_and_its_mistakes_are_reported_without_failing(data_dir: Path, tmp_path: Path) -> None:
    """The endpoint stands for any that the environment names: it knows none of the tasks."""
    scripts = tmp_path / "none.json"
    scripts.write_text("[]")
    command = [sys.executable, "-m", "demo.model", "--scripts", str(scripts)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"MODEL_KEY": "sk-real"}
    ) as model:
        try:
            assert model.stdout is not None
            url = model.stdout.readline().removeprefix("listening on ").strip() + "/v1"
            real = {"OPENAI_API_KEY": "sk-real", "OPENAI_BASE_URL": url, "OMNIOPS_MODEL__NAME": "some-model"}
            status, out, problems = finished(start(data_dir, "--tasks", "17,67", **real))
        finally:
            model.terminate()
    assert (status, problems) == (0, "")
    assert "2 tasks, model some-model" in out
    assert "orders.#W8665881.address" in out
    assert "1 of 2 tasks left the shop as the reference does." in out
