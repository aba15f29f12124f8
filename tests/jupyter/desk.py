"""A machine for Jupyter clients: a kernelspec `sandboxed` for each place, and a look at what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import PLACES_OF_USE

_END_TIMEOUT_S = 60


@dataclass(frozen=True)
class Desk:
    """A folder to work in, and the environment of a user who has the kernelspec."""

    folder: Path
    #: Everything temporary goes there; empty at the end.
    temporary: Path
    environment: dict[str, str]
    place: str
    #: Of the daemon; "" where there is none.
    docker: str

    def run(self, *command: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        """A program of this environment, to its end."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def containers(self) -> list[str]:
        """Kernels' containers that belong to this desk."""
        if not self.docker:
            return []
        command = ["docker", "--host", self.docker, "ps", "--all", "--no-trunc", "--filter", "label=omniops.kernel"]
        done = subprocess.run([*command, "--format", "{{.ID}} {{.Mounts}}"], capture_output=True, text=True, check=True)
        return [line.split()[0] for line in done.stdout.splitlines() if os.fspath(self.temporary) in line]

    def wait_until_clear(self, processes: set[int]) -> None:
        """Until nothing is left of a client whose processes are named; fails when something stays."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        left: Any = None
        while time.monotonic() < deadline:
            alive = {pid for pid in processes if _runs(pid)}
            left = alive, list(self.temporary.iterdir()), self.containers()
            if not any(left):
                return
            time.sleep(0.1)
        pytest.fail(f"left behind: {left}")


def below(pid: int) -> set[int]:
    """A process and all below it."""
    found = {pid}
    while True:
        more = {child for parent in found for child in _children(parent)} - found
        if not more:
            return found
        found |= more


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(params=PLACES_OF_USE)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    config: dict[str, Any] = {"preload": [], "memory_mb": 192, "processes": 32, "start_timeout_s": 60}
    name, host = "omniops-local", ""
    if request.param != "local":
        name, host = "omniops-docker", request.getfixturevalue("docker_host")
        image = request.getfixturevalue("sandbox_image")
        config |= {"image": image, "runtime": request.param, "host": host}
    spec = {
        "argv": ["omniops"],
        "display_name": "Python 3 (sandboxed)",
        "language": "python",
        "metadata": {"kernel_provisioner": {"provisioner_name": name, "config": config}},
    }
    kernels = tmp_path / "jupyter" / "kernels" / "sandboxed"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps(spec))
    # sockets' paths are short
    temporary = Path(tempfile.mkdtemp(prefix="oj-", dir="/tmp"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))},
        "HOME": os.fspath(tmp_path),
        "IPYTHONDIR": os.fspath(tmp_path / "ipython"),
        "JUPYTER_PATH": os.fspath(tmp_path / "jupyter"),
        "JUPYTER_RUNTIME_DIR": os.fspath(tmp_path / "runtime"),
        "TMPDIR": os.fspath(temporary),
        "TERM": "xterm",
    }
    yield Desk(tmp_path, temporary, environment, request.param, host)
    shutil.rmtree(temporary, ignore_errors=True)
