"""What a Docker daemon offers for sandboxes: asked once, then judged.

What is missing is told with the command that brings it. A part that somebody set up or named, and that does not work,
is *broken*; a part that nobody set up is only *absent*: whoever chooses by itself goes on to something else then.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiodocker
from aiohttp import ClientError

from kernel_pool.container_config import DockerConfig, Runtime
from kernel_pool.container_image import LABEL, sandbox_digest
from kernel_pool.types import IsolationUnavailable

#: What the Docker client raises when the daemon refuses, is gone, or does not answer.
DockerTrouble = (aiodocker.DockerError, ClientError, OSError, TimeoutError)
#: The client wraps what the system said into brackets.
_CAUSE = re.compile(r"\[([^\[\]]+)\]+$")
#: How long the daemon may take to tell of itself.
DAEMON_TIMEOUT_S = 10.0
USUAL_ADDRESS = "unix:///var/run/docker.sock"
#: The daemon's names for the limits that a sandbox needs, and the controllers behind them.
LIMITS = {"MemoryLimit": "memory", "PidsLimit": "pids", "CpuCfsQuota": "cpu"}


@dataclass(frozen=True)
class Problem:
    """Why containers cannot be had."""

    text: str
    #: What to run, or to change.
    remedy: str
    #: It was set up or named by somebody; False: nobody did.
    broken: bool

    def __str__(self) -> str:
        return f"{self.text}. {self.remedy}"


@dataclass(frozen=True)
class Daemon:
    """What a daemon said of itself and of one image."""

    address: str
    #: Somebody named the address, in the configuration or by DOCKER_HOST.
    named: bool
    image: str
    #: Why nobody answers; "" when the daemon does.
    silence: str = ""
    version: str = ""
    cgroup_version: str = ""
    runtimes: tuple[str, ...] = ()
    seccomp: bool = False
    #: Those of `LIMITS` that it can set.
    limits: frozenset[str] = frozenset()
    #: Digest of the image; "" when there is no such image.
    image_id: str = ""
    #: Why there is no such image, in the daemon's words.
    image_missing: str = ""
    #: Which code the image holds, as `sandbox_digest` tells it; None: it does not say.
    image_code: str | None = None

    @property
    def answers(self) -> bool:
        return not self.silence

    def image_problem(self) -> Problem | None:
        """What is wrong with the image; None when it holds this gateway's code."""
        if not self.image_id:
            named = self.image != DockerConfig.image
            text = f"there is no image {self.image!r} ({self.image_missing})"
            tag = f" --tag {self.image}" if named else ""
            return Problem(text, f"Make it: docker/build-image{tag}", broken=named)
        if self.image_code != sandbox_digest():
            text = (
                f"image {self.image!r} holds other code than this gateway ({self.image_code}, not {sandbox_digest()})"
            )
            return Problem(text, f"Make it anew: docker/build-image --tag {self.image}", broken=True)
        return None

    def problem(self, runtime: Runtime) -> Problem | None:
        """The first reason why no kernel can run in `runtime`; None when a container can be tried."""
        if self.silence:
            text = f"no Docker daemon answers at {self.address} ({self.silence})"
            return Problem(text, _bring_daemon(self), broken=self.named)
        set_up = bool(self.image_id)
        if runtime not in self.runtimes:
            return Problem(f"Docker has no runtime {runtime!r}", bring_runtime(runtime), broken=False)
        if not self.seccomp:
            text, remedy = "this Docker daemon has no seccomp", "Use a kernel that has CONFIG_SECCOMP_FILTER."
            return Problem(text, remedy, broken=set_up)
        for limit in LIMITS:
            if limit not in self.limits:
                text = f"this Docker daemon cannot set {limit}"
                return Problem(text, "Mount the machine's cgroups (apt-get install cgroupfs-mount).", broken=set_up)
        return self.image_problem()

    def require(self, runtime: Runtime) -> None:
        """Raise IsolationUnavailable with what is missing, and the command that brings it."""
        problem = self.problem(runtime)
        if problem is not None:
            raise IsolationUnavailable(str(problem))


def address_of(docker: DockerConfig) -> str:
    """Where the daemon is: as configured, as DOCKER_HOST has it, or at the usual place."""
    return docker.host or os.environ.get("DOCKER_HOST") or USUAL_ADDRESS


def nobody_there(docker: DockerConfig) -> Daemon | None:
    """The daemon's absence, where it can be told without asking: nobody named one, and no socket is at its place."""
    address = address_of(docker)
    if address != USUAL_ADDRESS or Path(address.removeprefix("unix://")).exists():
        return None
    return Daemon(address, named=False, image=docker.image, silence="there is no such socket")


async def ask(docker: DockerConfig, client: aiodocker.Docker | None = None) -> Daemon:
    """Ask the daemon of `docker`, over a connection of its own unless there is one. Never raises."""
    address = address_of(docker)
    named = address != USUAL_ADDRESS
    try:
        own = client or aiodocker.Docker(url=address)
    except (*DockerTrouble, ValueError) as error:
        return Daemon(address, named, docker.image, silence=words(error))
    try:
        async with asyncio.timeout(DAEMON_TIMEOUT_S):
            return _daemon(address, named, docker.image, await own.system.info(), await _image(own, docker.image))
    except (*DockerTrouble, ValueError) as error:
        return Daemon(address, named, docker.image, silence=words(error))
    finally:
        if client is None:
            await own.close()


async def _image(client: aiodocker.Docker, name: str) -> Mapping[str, Any] | str:
    try:
        return await client.images.inspect(name)
    except aiodocker.DockerError as error:
        return words(error)


def _daemon(address: str, named: bool, name: str, info: Mapping[str, Any], image: Mapping[str, Any] | str) -> Daemon:
    labels = ((image.get("Config") or {}).get("Labels") or {}) if isinstance(image, Mapping) else {}
    return Daemon(
        address=address,
        named=named,
        image=name,
        version=str(info.get("ServerVersion", "")),
        cgroup_version=str(info.get("CgroupVersion", "")),
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        seccomp=any("seccomp" in option for option in info.get("SecurityOptions") or ()),
        limits=frozenset(name for name in LIMITS if info.get(name)),
        image_id=image["Id"] if isinstance(image, Mapping) else "",
        image_missing="" if isinstance(image, Mapping) else image,
        image_code=labels.get(LABEL),
    )


def bring_runtime(runtime: str) -> str:
    """What to do where the daemon lacks a runtime."""
    if runtime == "runsc":
        return "docker/setup-debian installs gVisor and registers it: sudo docker/setup-debian"
    return "docker/setup-debian installs what is needed on Debian: sudo docker/setup-debian"


def _bring_daemon(daemon: Daemon) -> str:
    if daemon.named:
        return "Start it, or correct docker.host (DOCKER_HOST). On Debian: sudo docker/setup-debian"
    if not shutil.which("dockerd"):
        return "docker/setup-debian installs what is needed on Debian: sudo docker/setup-debian"
    path = Path(daemon.address.removeprefix("unix://"))
    if path.exists() and not os.access(path, os.W_OK):
        return "Whoever may use it owns the machine; if you are to: sudo usermod -aG docker $USER"
    if Path("/run/systemd/system").is_dir():
        return "Start it: sudo systemctl start docker"
    return "Start it: sudo dockerd"


def words(error: BaseException) -> str:
    """An error of the Docker client, for people."""
    text = str(getattr(error, "message", "") or error or type(error).__name__)
    if cause := _CAUSE.search(text):
        return cause[1]
    if isinstance(error, TimeoutError):
        return f"no answer in {DAEMON_TIMEOUT_S:g} s"
    return text
