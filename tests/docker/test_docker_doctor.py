"""The doctor with a real daemon: whole, and without gVisor; the gateway's own choice with both."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker_daemon import own_daemon

from kernel_pool.choice import choose
from kernel_pool.container_config import DockerConfig
from kernel_pool.container_image import sandbox_digest
from kernel_pool.doctor import Finding, examine, works

#: The first test may have to wait for the image.
pytestmark = pytest.mark.timeout(600)


def only(found: list[Finding], place: str, part: str) -> Finding:
    (finding,) = (item for item in found if (item.place, item.part) == (place, part))
    return finding


async def test_a_daemon_with_everything(docker_host: str, sandbox_image: str) -> None:
    docker = DockerConfig(image=sandbox_image, host=docker_host)
    found = await examine(docker)
    assert [item for item in found if item.place != "local" and item.state != "works"] == []
    assert sandbox_digest() in only(found, "docker", "image").found
    assert works(found, "docker runc")
    assert works(found, "docker runsc")
    assert (await choose("auto", docker)).place == "docker runsc"
    assert (await choose("docker", docker, ("runc",))).place == "docker runc"


async def test_a_daemon_without_gvisor_and_image(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text("{}")
    with own_daemon(config) as address:
        docker = DockerConfig(host=address)
        found = await examine(docker)
        assert only(found, "docker", "daemon").state == "works"
        gvisor = only(found, "docker runsc", "runtime")
        assert (gvisor.state, gvisor.remedy.endswith("sudo docker/setup-debian")) == ("absent", True)
        image = only(found, "docker", "image")
        assert (image.state, image.remedy) == ("absent", "Make it: docker/build-image")
        assert not works(found, "docker runc")
        choice = await choose("auto", docker)
        assert choice.place == "local"
        assert "Docker has no runtime 'runsc'" in choice.stronger
        assert "Make it: docker/build-image" in choice.stronger
