"""docker/: the compose file is really read and run as far as it goes without a network; the set-up can run again."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from places import CONTAINERS

DOCKER = Path(__file__).parents[2] / "docker"

#: The first test may have to wait for the image.
pytestmark = pytest.mark.timeout(600)


def compose(host: str, *arguments: str, project: str = "omniops-test", **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOCKER_HOST": host, "POSTGRES_PASSWORD": "x", "COMPOSE_PROJECT_NAME": project} | env
    command = ["docker-compose", *arguments]
    return subprocess.run(command, cwd=DOCKER, env=environment, capture_output=True, text=True, timeout=100)


def test_the_file_holds_together(docker_host: str) -> None:
    done = compose(docker_host, "config", "--services")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) >= {"gateway", "postgres"}
    environment = {name: value for name, value in os.environ.items() if name != "POSTGRES_PASSWORD"}
    refused = subprocess.run(
        ["docker-compose", "config"], cwd=DOCKER, env=environment, capture_output=True, text=True, timeout=100
    )
    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD" in refused.stderr


@pytest.mark.parametrize("runtime", CONTAINERS)
def test_the_sandbox_service_works(runtime: str, docker_host: str, sandbox_image: str) -> None:
    project = f"omniops{secrets.token_hex(4)}"
    told = {"OMNIOPS_SANDBOX_IMAGE": sandbox_image, "OMNIOPS_RUNTIME": runtime}
    try:
        done = compose(docker_host, "--profile", "check", "run", "--rm", "sandbox", project=project, **told)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the sandbox image works" in done.stdout
    finally:
        compose(docker_host, "--profile", "check", "down", "--volumes", project=project, **told)


def test_the_database_service_keeps_its_data(docker_host: str) -> None:
    """Postgres' image is made, comes up with pgvector, lets nobody in without the password, and restarts."""
    image = f"omniops-postgres-test:{secrets.token_hex(4)}"
    project = f"omniops{secrets.token_hex(4)}"
    told = {"POSTGRES_IMAGE": image, "POSTGRES_PASSWORD": "o'Brien"}
    build = [DOCKER / "build-image", "postgres", "--tag", image, "--python", sys.executable]
    environment = os.environ | {"DOCKER_HOST": docker_host}
    done = subprocess.run(build, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr

    def psql(sql: str, password: str = told["POSTGRES_PASSWORD"]) -> subprocess.CompletedProcess[str]:
        program = ["exec", "-T", "-e", f"PGPASSWORD={password}", "postgres", "psql", "-tA", "-h", "127.0.0.1"]
        return compose(docker_host, *program, "-U", "omniops", "-c", sql, "omniops", project=project, **told)

    def answers() -> bool:
        return psql("SELECT 1").stdout == "1\n"

    try:
        assert compose(docker_host, "up", "-d", "postgres", project=project, **told).returncode == 0
        wait_for(answers)
        made = psql("CREATE EXTENSION vector; CREATE TABLE kept AS SELECT '[1,2]'::vector AS v")
        assert made.returncode == 0, made.stderr
        refused = psql("SELECT 1", password="another")
        assert "password authentication failed" in refused.stderr
        assert compose(docker_host, "restart", "postgres", project=project, **told).returncode == 0
        wait_for(answers)
        assert psql("SELECT v FROM kept").stdout == "[1,2]\n"
    finally:
        compose(docker_host, "down", "--volumes", project=project, **told)
        subprocess.run(["docker", "rmi", "--force", image], env=environment, capture_output=True, timeout=60)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.5)


def test_setting_up_again_changes_nothing() -> None:
    """In a mount namespace with an /etc/docker of its own, and no systemd to be told."""
    Path("/etc/docker").mkdir(exist_ok=True)
    script = f"""
mount -t tmpfs none /etc/docker
[ ! -d /run/systemd ] || mount -t tmpfs none /run/systemd
echo '{{"debug": true, "runtimes": {{"other": {{"path": "/bin/true"}}}}}}' > /etc/docker/daemon.json
{DOCKER}/setup-debian
cp /etc/docker/daemon.json /etc/docker/first
{DOCKER}/setup-debian
cmp /etc/docker/daemon.json /etc/docker/first
cat /etc/docker/daemon.json
"""
    done = subprocess.run(["unshare", "--mount", "bash", "-euc", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("runsc registered") == 1
    assert '"debug": true' in done.stdout
    assert '"other"' in done.stdout
