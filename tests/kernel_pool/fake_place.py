"""Places without processes, in a time that passes only while nothing happens: the pool's policies, fast and exact."""

from __future__ import annotations

import asyncio
import functools
import shutil
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.types import (
    Exit,
    ExitReason,
    KernelPoolError,
    PlaceConfig,
    PoolConfig,
    Profile,
    StartFailed,
)

KILLED = Exit(ExitReason.KILLED, "somebody killed it")


class WarpLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer when nothing is left to do; what goes to a thread is done at once."""

    _ahead = 0.0

    def time(self) -> float:
        return self._ahead

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self._ahead = max(self._ahead, min(timers))
        super()._run_once()  # type: ignore[misc]


def warped(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in warped time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=WarpLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


@dataclass(eq=False)
class FakeProcess:
    id: str
    directory: Path
    exited: asyncio.Future[Exit]
    world: World
    key: bytes = b"key"
    pid: int = 1
    uid: int | None = None
    proc: int | None = None
    baseline: int = 0
    memory_full: bool = False
    notes: list[str] = field(default_factory=list)
    frozen: bool = False
    #: Whether it answers probes.
    answers: bool = True

    def interrupt(self) -> None:
        pass

    async def kill(self, exit: Exit) -> None:
        if not self.exited.done():
            self.exited.set_result(exit)

    async def freeze(self) -> None:
        self.frozen = True

    async def thaw(self) -> None:
        self.frozen = False

    def out_of_memory(self) -> bool:
        return False

    def note(self, text: str) -> None:
        if self.world.note_error is not None:
            raise self.world.note_error
        self.notes.append(text)

    def die(self, exit: Exit = KILLED) -> None:
        self.exited.set_result(exit)


class FakeChannels:
    def __init__(self, process: FakeProcess) -> None:
        self._process = process
        self.open = True

    async def request(self, channel: str, msg_type: str, content: object) -> object:
        if not self._process.answers or self._process.frozen:
            await asyncio.sleep(1e9)
        if self._process.exited.done():
            raise KernelPoolError("gone")
        return object()

    async def close(self) -> None:
        self.open = False


@dataclass(frozen=True)
class FakeFound:
    process: FakeProcess
    note: str


@dataclass
class World:
    """What is outside of every gateway: the processes, by folder; and how starting goes today."""

    generation: str = "g1"
    start_s: float = 0.1
    start_error: Exception | None = None
    place_error: Exception | None = None
    note_error: OSError | None = None
    living: dict[str, list[FakeProcess]] = field(default_factory=dict)
    places: list[FakePlace] = field(default_factory=list)
    starting: int = 0
    most_starting: int = 0
    count: int = 0

    def place_of(self, config: PlaceConfig) -> FakePlace:
        return FakePlace(self, config)

    @property
    def processes(self) -> list[FakeProcess]:
        return [process for folder in self.living.values() for process in folder if not process.exited.done()]

    @property
    def open_folders(self) -> list[str]:
        return sorted(place.folder.name for place in self.places if place.started)


class FakePlace:
    def __init__(self, world: World, config: PlaceConfig) -> None:
        self.world = world
        self.config = config
        self.folder = config.runtime_dir
        self.started = False
        self.generation = f"{world.generation}{''.join(sorted(config.files))}"

    async def start(self) -> None:
        if self.world.place_error is not None:
            raise self.world.place_error
        self.folder.mkdir(exist_ok=True)
        self.started = True
        self.world.places.append(self)

    async def attach(self) -> list[FakeFound]:
        return [FakeFound(p, (p.notes or [""])[-1]) for p in self._here if not p.exited.done()]

    @property
    def _here(self) -> list[FakeProcess]:
        return self.world.living.setdefault(self.folder.name, [])

    async def spawn(self, key: bytes | None = None) -> FakeProcess:
        assert self.started
        assert not self.config.draining
        world = self.world
        world.starting += 1
        world.most_starting = max(world.most_starting, world.starting)
        try:
            await asyncio.sleep(world.start_s)
            if world.start_error is not None:
                raise world.start_error
        finally:
            world.starting -= 1
        world.count += 1
        process = FakeProcess(f"k{world.count}", self.folder, asyncio.get_running_loop().create_future(), world)
        self._here.append(process)
        return process

    async def discard(self, process: FakeProcess) -> None:
        assert process.exited.done()
        self._here.remove(process)

    async def leave(self) -> None:
        self.started = False

    async def close(self) -> None:
        if self.started:
            for process in self._here:
                await process.kill(KILLED)
            self.started = False
            shutil.rmtree(self.folder)


async def fake_connect(process: FakeProcess, profile: Profile, wait: bool) -> Kernel:
    if wait and not process.answers:
        raise StartFailed("no answer")
    return Kernel(process, FakeChannels(process), profile, 1.0)  # type: ignore[arg-type]


def fake_pool(world: World, config: PoolConfig) -> Pool:
    return Pool(config, world.place_of, connect_kernel=fake_connect)  # type: ignore[arg-type]


@asynccontextmanager
async def running(world: World, config: PoolConfig):  # type: ignore[no-untyped-def]
    """A pool, started, and closed at the end; then nothing of it may be left."""
    pool = fake_pool(world, config)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()
    assert world.processes == []
    assert world.open_folders == []
    assert not config.runtime_dir.exists()


def process_of(kernel: Kernel) -> FakeProcess:
    assert isinstance(kernel.process, FakeProcess)
    return kernel.process
