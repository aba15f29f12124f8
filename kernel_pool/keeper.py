"""Places for clients that come and go: kept on an event loop in a thread of their own, until the process ends.

jupyter_client calls a provisioner from whatever loop its program has at the moment; a blocking client's loop stands
still between its calls. Kernels want somebody who is always there: to watch their memory, to hear how they end.
Kernels of one configuration share a place, which ends with the last of them. If this process dies without a word, a
janitor (`kernel_pool.janitor`) ends what it left.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kernel_pool.container_config import DockerConfig
from kernel_pool.janitor import Janitor, Scene
from kernel_pool.place import Place, Process
from kernel_pool.types import PlaceConfig, Profile
from kernel_pool.watch import watch_memory

T = TypeVar("T")

#: Seconds between two looks of the memory watcher.
_WATCH_INTERVAL_S = 0.25
#: The janitor is there before: this is for when it was killed too.
_ORPHAN_GRACE_S = 10.0
_CLOSE_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Kind:
    """All kernels with the same values share a place."""

    profile: Profile
    #: None: on this machine, in sandboxes of our own.
    docker: DockerConfig | None
    start_timeout_s: float


@dataclass(eq=False)
class Shared:
    """A place and the kernels that hold on to it."""

    kind: Kind
    place: Place
    folder: Path
    janitor: Janitor
    users: int = 0
    processes: dict[str, Process] = field(default_factory=dict)
    ready: asyncio.Task[None] | None = None
    watcher: asyncio.Task[None] | None = None


class Keeper:
    """All places of this process. Its coroutines run on its own loop: see `do`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="omniops-kernels", daemon=True)
        self._thread.start()
        self._places: dict[Kind, Shared] = {}

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have `work` done on the keeper's loop, from any other; cancelled when this is."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def share(self, kind: Kind) -> Shared:
        """The place of a kind, started for the first who asks. Raises IsolationUnavailable or StartFailed."""
        shared = self._places.get(kind)
        if shared is None:
            shared = self._places[kind] = _begin(kind)
        shared.users += 1
        try:
            assert shared.ready is not None
            await asyncio.shield(shared.ready)
        except BaseException:
            await self.release(shared)
            raise
        return shared

    async def release(self, shared: Shared) -> None:
        """Let go of a place; the last one closes it."""
        shared.users -= 1
        if shared.users <= 0:
            await self._close(shared)

    async def close(self) -> None:
        """End every place, whoever still holds on to it."""
        await asyncio.gather(*map(self._close, tuple(self._places.values())), return_exceptions=True)

    async def _close(self, shared: Shared) -> None:
        if self._places.get(shared.kind) is not shared:
            return
        del self._places[shared.kind]
        tasks = [task for task in (shared.ready, shared.watcher) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await shared.place.close()
        await asyncio.to_thread(shutil.rmtree, shared.folder, ignore_errors=True)
        shared.janitor.dismiss()


def _begin(kind: Kind) -> Shared:
    folder = Path(tempfile.mkdtemp(prefix="omniops-jupyter-"))
    config = PlaceConfig(
        folder / "run", kind.profile, start_timeout_s=kind.start_timeout_s, orphan_grace_s=_ORPHAN_GRACE_S
    )
    scene = Scene(folder, config, kind.docker)
    shared = Shared(kind, scene.place(), folder, Janitor.hire(scene))
    shared.ready = asyncio.create_task(shared.place.start())
    watching = watch_memory(lambda: list(shared.processes.values()), kind.profile.limits.memory_mb, _WATCH_INTERVAL_S)
    shared.watcher = asyncio.create_task(watching)
    return shared


_keeper: Keeper | None = None
_lock = threading.Lock()


def keeper() -> Keeper:
    """This process's keeper, made at the first call."""
    global _keeper
    with _lock:
        if _keeper is None:
            _keeper = Keeper()
            atexit.register(_end, _keeper)
        return _keeper


def _end(ending: Keeper) -> None:
    with contextlib.suppress(Exception):  # the janitor does what is left
        ending.submit(ending.close()).result(_CLOSE_TIMEOUT_S)


def _forget() -> None:
    """After a fork: threads are not inherited, and the kernels are the parent's."""
    global _keeper, _lock
    if _keeper is not None:
        atexit.unregister(_end)
    _keeper, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
