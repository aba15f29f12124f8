"""The strongest sandbox is taken that can be had; what is set up and broken is an error, never a reason for less."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kernel_pool import container_check
from kernel_pool.choice import Choice, choose, refuse_weaker
from kernel_pool.container_check import Daemon, nobody_there
from kernel_pool.container_config import DockerConfig
from kernel_pool.container_image import sandbox_digest
from kernel_pool.docker import DockerPlace
from kernel_pool.local import LocalPlace
from kernel_pool.types import IsolationUnavailable

WHOLE = Daemon(
    address="unix:///var/run/docker.sock",
    named=False,
    image=DockerConfig.image,
    version="20.10",
    runtimes=("runc", "runsc"),
    seccomp=True,
    limits=frozenset(container_check.LIMITS),
    image_id="sha256:0123",
    image_code=sandbox_digest(),
)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> partial[None]:
    """Have every daemon that is asked say something."""

    async def answer(daemon: Daemon, docker: DockerConfig) -> Daemon:
        return daemon

    def say(daemon: Daemon) -> None:
        monkeypatch.setattr(container_check, "nobody_there", lambda docker: None)
        monkeypatch.setattr(container_check, "ask", partial(answer, daemon))

    return partial(say)


async def test_gvisor_comes_first(says: partial[None]) -> None:
    says(WHOLE)
    choice = await choose("auto", DockerConfig())
    assert (choice.place, choice.stronger) == ("docker runsc", "")
    assert isinstance(choice.place_of, partial)
    assert choice.place_of.func is DockerPlace
    assert choice.place_of.keywords["docker"].runtime == "runsc"


async def test_runc_comes_next_and_it_is_said_why(says: partial[None]) -> None:
    says(replace(WHOLE, runtimes=("runc",)))
    choice = await choose("auto", DockerConfig())
    assert choice.place == "docker runc"
    assert "Docker has no runtime 'runsc'" in str(choice)
    assert "sudo docker/setup-debian" in str(choice)


@pytest.mark.parametrize(
    ("daemon", "why", "command"),
    [
        (replace(WHOLE, silence="no such socket"), "no Docker daemon answers", "sudo d"),
        (replace(WHOLE, image_id="", image_missing="no such image"), "there is no image", "docker/build-image"),
    ],
    ids=["no daemon", "no image"],
)
async def test_what_nobody_set_up_is_left_out_and_said(
    says: partial[None], daemon: Daemon, why: str, command: str
) -> None:
    says(daemon)
    choice = await choose("auto", DockerConfig())
    assert (choice.place, choice.place_of) == ("local", LocalPlace)
    assert why in str(choice)
    assert command in str(choice)
    with pytest.raises(IsolationUnavailable, match=why):
        await choose("docker", DockerConfig())


@pytest.mark.parametrize(
    ("daemon", "why"),
    [
        (replace(WHOLE, named=True, silence="no such socket"), "no Docker daemon answers"),
        (replace(WHOLE, image="mine", image_id="", image_missing="no such image"), "there is no image 'mine'"),
        (replace(WHOLE, image_code="older"), "holds other code than this gateway"),
        (replace(WHOLE, seccomp=False), "has no seccomp"),
        (replace(WHOLE, limits=frozenset({"MemoryLimit"})), "cannot set PidsLimit"),
    ],
    ids=["named daemon", "named image", "old image", "no seccomp", "no limit"],
)
async def test_what_is_set_up_and_broken_is_an_error(says: partial[None], daemon: Daemon, why: str) -> None:
    says(daemon)
    with pytest.raises(IsolationUnavailable, match=why) as caught:
        await choose("auto", DockerConfig())
    assert 'pool.provisioner = "local"' in str(caught.value)
    assert (await choose("local", DockerConfig())).place == "local"


@pytest.mark.parametrize("daemon", [replace(WHOLE, runtimes=("runc",)), replace(WHOLE, silence="x")])
async def test_a_runtime_that_is_named_is_insisted_on(says: partial[None], daemon: Daemon) -> None:
    says(daemon)
    with pytest.raises(IsolationUnavailable):
        await choose("auto", DockerConfig(), ("runsc",))


async def test_a_dead_address_for_real(tmp_path: Path) -> None:
    docker = DockerConfig(host=f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(IsolationUnavailable, match=r"nobody\.sock \(No such file or directory\)\. Start it"):
        await choose("auto", docker)


def test_a_machine_without_docker_is_known_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(container_check, "USUAL_ADDRESS", f"unix://{tmp_path}/docker.sock")
    daemon = nobody_there(DockerConfig())
    assert daemon is not None
    assert not daemon.answers
    assert nobody_there(DockerConfig(host="tcp://10.0.0.1:2375")) is None


def test_nothing_weaker_than_last_time() -> None:
    weaker = Choice(LocalPlace, "local", "namespaces", "there is no image. Make it: docker/build-image")
    with pytest.raises(IsolationUnavailable, match="docker/build-image") as caught:
        refuse_weaker(weaker, "docker runsc")
    assert 'pool.provisioner = "local"' in str(caught.value)
    refuse_weaker(weaker, "local")
    refuse_weaker(weaker, "")
    refuse_weaker(replace(weaker, place="docker runsc"), "docker runc")
