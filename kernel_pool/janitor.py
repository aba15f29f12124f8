"""Cleans up after a process that died without a word: a small process of its own that waits for the other's end.

Whoever keeps places hires one per place. It hears over a pipe what it is to look after; when the pipe ends without a
word of dismissal, it ends the place's kernels and removes its folder. It is in a session of its own, so that what ends
its employer's process group does not end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel_pool.container_config import DockerConfig
    from kernel_pool.place import Place
    from kernel_pool.types import PlaceConfig

_RUN = "from kernel_pool.janitor import main; main()"
#: No path.
_DISMISSED = ""


@dataclass(frozen=True)
class Scene:
    """What there is to clean up."""

    folder: Path
    config: PlaceConfig
    docker: DockerConfig | None

    def place(self) -> Place:
        if self.docker is None:
            from kernel_pool.local import LocalPlace

            return LocalPlace(self.config)
        from kernel_pool.docker import DockerPlace

        return DockerPlace(self.config, self.docker)

    def to_json(self) -> dict[str, Any]:
        docker = self.docker
        named = None if docker is None else [docker.image, docker.runtime, docker.host]
        return {"folder": os.fspath(self.folder), "run": os.fspath(self.config.runtime_dir), "docker": named}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Scene:
        from kernel_pool.container_config import DockerConfig
        from kernel_pool.types import PlaceConfig, Profile

        config = PlaceConfig(Path(told["run"]), Profile(preload=(), minimum=0))
        return cls(Path(told["folder"]), config, DockerConfig(*told["docker"]) if told["docker"] else None)


class Janitor:
    """The employer's end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def hire(cls, scene: Scene) -> Janitor:
        """Start one."""
        root = os.fspath(Path(__file__).parent.parent)
        names = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "TMPDIR")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _RUN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**kept, "PYTHONPATH": root},
            cwd="/",
            start_new_session=True,
        )
        janitor = cls(process)
        janitor._tell(scene.to_json())
        return janitor

    def mind(self, file: str) -> None:
        """Name a file, by its whole path, that is to go in any case."""
        self._tell(file)

    def dismiss(self) -> None:
        """There is nothing left to do; returns when the janitor has gone."""
        self._tell(_DISMISSED)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, what: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()


def main() -> None:
    """The janitor's life."""
    heard = sys.stdin.buffer.read().splitlines()
    told = [json.loads(line) for line in heard]
    for file in told[1:]:
        with contextlib.suppress(OSError):
            os.unlink(file)
    if not told or told[-1] == _DISMISSED:
        return
    scene = Scene.from_json(told[0])
    with contextlib.suppress(Exception):  # the folder goes whatever the place says
        asyncio.run(_end(scene))
    shutil.rmtree(scene.folder, ignore_errors=True)


async def _end(scene: Scene) -> None:
    """Take the place over, without new kernels, and close it."""
    place = replace(scene, config=replace(scene.config, draining=True)).place()
    await place.start()
    await place.attach()
    await place.close()
