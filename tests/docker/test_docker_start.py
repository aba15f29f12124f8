"""What is configured and not there is an error that names the command that brings it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import aiodocker
import pytest
from pools import place_config

from kernel_pool.container_config import DockerConfig, container_config
from kernel_pool.container_image import LABEL
from kernel_pool.container_seccomp import docker_profile
from kernel_pool.docker import DockerPlace
from kernel_pool.types import IsolationUnavailable, Limits, PoolConfig

PROJECT = Path(__file__).parent.parent.parent

#: The first test may have to wait for the image.
pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]


async def refusal(config: PoolConfig, docker: DockerConfig) -> str:
    with pytest.raises(IsolationUnavailable) as caught:
        await DockerPlace(place_config(config), docker).start()
    return str(caught.value)


async def test_no_daemon(config: PoolConfig, tmp_path: Path) -> None:
    text = await refusal(config, DockerConfig(host=f"unix://{tmp_path}/nobody.sock"))
    assert text.startswith(f"no Docker daemon answers at unix://{tmp_path}/nobody.sock")
    assert "docker/setup-debian" in text


async def test_no_such_runtime(config: PoolConfig, docker_host: str) -> None:
    docker = replace(DockerConfig(host=docker_host), runtime="kata")  # type: ignore[arg-type]
    assert (await refusal(config, docker)).startswith("Docker has no runtime 'kata'. docker/setup-debian")


async def test_no_image(config: PoolConfig, docker_host: str) -> None:
    text = await refusal(config, DockerConfig(host=docker_host, image="omniops-no-such-image"))
    assert text.startswith("there is no image 'omniops-no-such-image'")
    assert text.endswith("Make it: docker/build-image --tag omniops-no-such-image")


async def test_an_image_with_other_code(
    config: PoolConfig, docker_host: str, sandbox_image: str, client: aiodocker.Docker
) -> None:
    container = await client.containers.create({"Image": sandbox_image, "Labels": {LABEL: "older"}})
    await container.commit(repository="omniops-sandbox-old", tag="test")
    await container.delete(force=True)
    try:
        text = await refusal(config, DockerConfig(host=docker_host, image="omniops-sandbox-old:test"))
        assert "holds other code than this gateway (older, not " in text
        assert text.endswith("Make it anew: docker/build-image --tag omniops-sandbox-old:test")
    finally:
        await client.images.delete("omniops-sandbox-old:test", force=True)


def test_the_seccomp_profile_for_hand_started_containers_is_the_same() -> None:
    written = json.loads((PROJECT / "docker" / "seccomp.json").read_text())
    assert written == docker_profile(), "python -m kernel_pool.container_seccomp > docker/seccomp.json"


def test_two_containers_share_nothing_that_one_could_write() -> None:
    def mounts(kernel: str) -> set[str]:
        document = container_config(
            DockerConfig(),
            Limits(),
            user=(700_000, 700_000),
            ipc=Path("/run/kernels") / kernel,
            files=Path("/run/files"),
            labels={},
            baseline=None,
        )
        binds = [mount for mount in document["HostConfig"]["Mounts"] if mount["Type"] == "bind"]
        return {mount["Source"] for mount in binds if not mount["ReadOnly"]}

    assert mounts("a") == {"/run/kernels/a"}
    assert not mounts("a") & mounts("b")
