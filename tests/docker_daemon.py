"""A Docker daemon and a sandbox image for tests: those that are here, or made for the test run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel_pool.container_image import sandbox_digest

PROJECT = Path(__file__).parent.parent
#: Address of a daemon to use instead of one of the tests' own.
ADDRESS_NAME = "KERNEL_TEST_DOCKER"
_START_TIMEOUT_S = 30
#: How long what a killed daemon started may take to end with it.
_LAST_WORDS_S = 2
#: Names the folder that the processes of one test run share.
_SHARED_NAME = "KERNEL_TEST_SHARED"


def shared_folder() -> Path:
    """For what is made once for a whole test run, whichever process comes first."""
    return Path(os.environ[_SHARED_NAME])


def _answers(address: str) -> bool:
    done = subprocess.run(["docker", "--host", address, "info"], capture_output=True, check=False)
    return done.returncode == 0


@dataclass(frozen=True)
class OwnDaemon:
    folder: Path

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    @classmethod
    def start(cls, config: Path) -> OwnDaemon:
        """One that touches no network settings; skips where none can be started."""
        missing = [
            name for name in ("docker", "dockerd", "docker-compose", "runsc", "debootstrap") if not shutil.which(name)
        ]
        if missing or os.getuid() != 0:
            pytest.skip(f"no Docker daemon can be started here (missing: {missing or 'root'}); see docker/setup-debian")
        daemon = cls(Path(tempfile.mkdtemp(prefix="omniops-docker-")))
        daemon.run(config)
        return daemon

    def run(self, config: Path) -> None:
        """Start it in its folder, again after it was killed; returns when it answers."""
        folder = self.folder
        self._forget_containerd()
        command = ["dockerd", "--host", self.address, "--config-file", config]
        command += ["--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
        command += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(self.address):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"dockerd did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def _forget_containerd(self) -> None:
        """One that ended with its killed daemon and that nobody has buried passes for living: the next would wait."""
        note = self.folder / "exec" / "containerd" / "containerd.pid"
        deadline = time.monotonic() + _LAST_WORDS_S
        while note.exists() and time.monotonic() < deadline:
            if not _runs(int(note.read_text())):
                note.unlink()
            time.sleep(0.05)

    def kill(self) -> None:
        """As when it crashes: what it started is left alone."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        while _runs(pid):
            time.sleep(0.05)

    def end(self) -> None:
        """From whatever process; leaves nothing behind."""
        with contextlib.suppress(OSError, ValueError):
            pid = self.pid
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + _START_TIMEOUT_S
            while _runs(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{self.folder}/"):  # the daemon leaves its network namespace mounted
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(self.folder)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def own_daemon(config: Path) -> Iterator[str]:
    """Address of a daemon for one test; skips where none can be started."""
    daemon = OwnDaemon.start(config)
    try:
        yield daemon.address
    finally:
        daemon.end()


def pytest_configure(config: pytest.Config) -> None:
    """A folder that all processes of a test run (pytest-xdist) know."""
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED_NAME] = tempfile.mkdtemp(prefix="omniops-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the daemon that the first process which wanted one has started."""
    if hasattr(config, "workerinput") or _SHARED_NAME not in os.environ:
        return
    shared = Path(os.environ.pop(_SHARED_NAME))
    note = shared / "docker"
    if note.exists():
        OwnDaemon(Path(note.read_text())).end()
    shutil.rmtree(shared)


@pytest.fixture(scope="session")
def docker_host() -> str:
    """Address of a daemon with runc and gVisor: the one that is named, or one for the whole test run."""
    named = os.environ.get(ADDRESS_NAME)
    if named:
        return named
    shared = shared_folder()
    note = shared / "docker"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            note.write_text(os.fspath(OwnDaemon.start(PROJECT / "docker" / "daemon.json").folder))
        return OwnDaemon(Path(note.read_text())).address


@pytest.fixture(scope="session")
def sandbox_image(docker_host: str) -> str:
    """Name of an image with the sandbox's code as it is now."""
    tag = f"omniops-sandbox-test:{sandbox_digest()}"
    command = [PROJECT / "docker" / "build-image", "--tag", tag, "--python", sys.executable]
    with (shared_folder() / "image").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the second process of this run finds it made
        done = subprocess.run(command, env={**os.environ, "DOCKER_HOST": docker_host}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tag
