"""`omniops doctor`: a table for people, JSON for programs, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gateway_world import environment, omniops


def test_a_machine_that_works(tmp_path: Path, database_url: str) -> None:
    done = omniops("doctor", env=environment(database_url) | {"COLUMNS": "140"}, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("local", "user namespace", "seccomp filter", "cgroup memory", "a kernel", "DATABASE_URL"):
        assert shown in done.stdout
    assert "Kernels run in: namespaces" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_database_is_tried(tmp_path: Path) -> None:
    done = omniops("doctor", "--json", env=environment(), cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["healthy"], told["place"]) == (0, True, "local")
    assert [item["part"] for item in told["findings"] if item["place"] == "database"] == ["embedded Postgres"]


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({"OMNIOPS_POOL__PROVISIONER": "docker", "OMNIOPS_DOCKER__HOST": "unix:///nowhere/docker.sock"}, "daemon"),
        ({"OMNIOPS_POOL__PROVISIONER": "auto", "DOCKER_HOST": "unix:///nowhere/docker.sock"}, "daemon"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "DATABASE_URL"),
    ],
    ids=["docker", "auto", "database"],
)
def test_what_is_configured_and_broken(tmp_path: Path, database_url: str, env: dict[str, str], part: str) -> None:
    done = omniops("doctor", "--json", env=environment(database_url) | env, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert not told["healthy"]
    (broken,) = (item for item in told["findings"] if item["part"] == part)
    assert broken["state"] == "fails"
    assert broken["remedy"]
