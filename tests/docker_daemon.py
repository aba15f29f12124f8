"""A Docker daemon and a sandbox image for tests: those that are here, or made for the test run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
IMAGE = "omniops-sandbox-test"
#: Address of a daemon to use instead of one of the tests' own.
ADDRESS_NAME = "KERNEL_TEST_DOCKER"
_START_TIMEOUT_S = 30


def _answers(address: str) -> bool:
    done = subprocess.run(
        ["docker", "--host", address, "info", "--format", "{{json .Runtimes}}"], capture_output=True, check=False
    )
    return done.returncode == 0 and "runsc" in json.loads(done.stdout)


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """Address of a daemon with runc and gVisor; as root, one of the tests' own that touches no network settings."""
    named = os.environ.get(ADDRESS_NAME)
    if named:
        yield named
        return
    missing = [name for name in ("docker", "dockerd", "runsc", "debootstrap") if not shutil.which(name)]
    if missing or os.getuid() != 0:
        pytest.skip(f"no Docker daemon can be started here (missing: {missing or 'root'}); see docker/setup-debian")
    folder = Path(tempfile.mkdtemp(prefix="omniops-docker-"))
    address = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--host", address, "--config-file", PROJECT / "docker" / "daemon.json"]
    command += ["--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(address):
            if daemon.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"dockerd did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield address
    finally:
        daemon.terminate()
        daemon.wait(30)
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{folder}/"):  # the daemon leaves its network namespace mounted
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sandbox_image(docker_host: str) -> str:
    """Name of an image with the sandbox's code as it is now."""
    command = [PROJECT / "docker" / "build-image", "--tag", IMAGE]
    done = subprocess.run(command, env={**os.environ, "DOCKER_HOST": docker_host}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return IMAGE
