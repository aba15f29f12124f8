"""The gateway is killed while its kernels are in containers; the next one goes on with its sessions."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import CONTAINERS
from survival_world import World, begin, cell_of, check, survival_world


@pytest.fixture(params=CONTAINERS)
def world(
    request: pytest.FixtureRequest, docker_host: str, sandbox_image: str, postgres: str, tmp_path: Path
) -> Iterator[World]:
    place = {
        "OMNIOPS_POOL__PROVISIONER": "docker",
        "OMNIOPS_DOCKER__HOST": docker_host,
        "OMNIOPS_DOCKER__IMAGE": sandbox_image,
        "OMNIOPS_DOCKER__RUNTIME": request.param,
    }
    with survival_world(postgres, tmp_path, **place) as made:
        yield made


def containers_of(world: World) -> list[str]:
    """Containers that see a folder of this gateway's."""
    docker = ["docker", "--host", world.place["OMNIOPS_DOCKER__HOST"]]
    every = subprocess.run([*docker, "ps", "-aq"], capture_output=True, text=True, check=True).stdout.split()
    if not every:
        return []
    shown = [*docker, "inspect", "--format", "{{.Id}} {{range .Mounts}}{{.Source}} {{end}}", *every]
    # others of this test run end theirs meanwhile
    lines = subprocess.run(shown, capture_output=True, text=True, check=False).stdout.splitlines()
    return [line for line in lines if str(world.runtime) in line]


@pytest.mark.timeout(600)
def test_a_cell_in_a_container_goes_on_when_its_gateway_is_killed(world: World) -> None:
    """One gateway after the other is killed at another point of a cell's way, with a session of its own."""
    points = ("output", 4), ("executing before sent upstream", 0), ("reply before transcript", 0)
    sessions: list[str] = []
    for number, (point, times) in enumerate(points):
        with world.gateway(point, times) as gateway:
            sessions.append(gateway.create())
            gateway.run(sessions[-1], "kept = 41")
            lost = begin(gateway, sessions[-1], cell_of(number))
            assert gateway.process.wait(120) == -9
            lost.join()
    with world.gateway() as last:
        assert len(containers_of(world)) >= len(sessions)  # so it would be seen what is left
        for number, session in enumerate(sessions):
            assert last.session(session)["state"] == "live"
            check(world, last, session, number)
            with last.http() as http:
                assert http.delete(f"/v1/sessions/{session}").status_code == 204
    assert world.left_over() == []
    assert containers_of(world) == []
