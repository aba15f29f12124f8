"""Processes that read cells: few, kept warm, each bounded in time and memory, replaced when one is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from ty import find_ty_bin

from gateway.checking.messages import LENGTH, Question, Reading, pack

log = structlog.get_logger(__name__)

#: Bytes of one answer.
_MOST = 64 * 1024 * 1024


class NoAnswer(Exception):
    """The cell could not be read. The message says why, in a few words."""


@dataclass(frozen=True)
class _Worker:
    process: asyncio.subprocess.Process

    async def ask(self, question: Question) -> Reading:
        """Raises NoAnswer: it ended."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise NoAnswer("the checker has no pipes")
        try:
            stdin.write(pack(question))
            await stdin.drain()
            size = LENGTH.unpack(await stdout.readexactly(LENGTH.size))[0]
            if size > _MOST:
                raise NoAnswer("the checker gave no answer")
            return msgspec.msgpack.decode(await stdout.readexactly(size), type=Reading)
        except (OSError, asyncio.IncompleteReadError):
            raise NoAnswer("the checker ended") from None
        except msgspec.MsgspecError:
            raise NoAnswer("the checker gave no answer") from None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Nobody asks it any more."""
        self.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.stdout is not None:
            while await self.process.stdout.read(_MOST):
                pass  # to its end, so that the pipe is closed with the process
        await self.process.wait()


class Workers:
    """At most `most` processes; a question waits for a free one. Methods belong to one event loop."""

    def __init__(self, folder: Path, *, most: int, memory_mb: int, start_timeout_s: float) -> None:
        self._folder = folder
        self._start_timeout_s = start_timeout_s
        self._memory_mb = memory_mb
        self._most = most
        self._slots = asyncio.Semaphore(most)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question, timeout_s: float) -> Reading:
        """What a worker makes of it, waiting included.

        Raises:
            NoAnswer: it took too long, or a worker ended. Another takes its place.
        """
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                if self._closed:
                    raise NoAnswer("the gateway is stopping")
                return await self._ask(question)
        except TimeoutError:
            raise NoAnswer(f"it took longer than {timeout_s:g} s") from None
        except OSError as error:
            raise NoAnswer(f"no checker can be started ({error.strerror})") from None

    async def close(self) -> None:
        """End all of them."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._all:
            worker.kill()
        for _ in range(self._most):  # what was asked has come to its end
            await self._slots.acquire()
        await asyncio.gather(*(worker.end() for worker in self._all))
        self._all.clear()
        self._idle.clear()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of those that live."""
        return tuple(worker.process.pid for worker in self._all)

    async def _ask(self, question: Question) -> Reading:
        worker = self._idle.pop() if self._idle else await self._start()
        try:
            answer = await worker.ask(question)
        except BaseException:
            # in the middle of an answer, so out of step: it is of no use any more
            if not self._closed:
                self._later(self._replace(worker, question.root))
            raise
        self._idle.append(worker)
        return answer

    async def _start(self) -> _Worker:
        """Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "gateway.checking.worker",
            find_ty_bin(),
            str(self._memory_mb),
            cwd=self._folder,
            # nothing of the gateway's: what it knows by its environment is no business of a cell's
            env={"PATH": "", "HOME": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        worker = _Worker(process)
        self._all.add(worker)
        return worker

    async def _replace(self, lost: _Worker, root: str) -> None:
        """Another one in its place, warm before the next cell comes."""
        await lost.end()
        self._all.discard(lost)
        with contextlib.suppress(NoAnswer):
            await self.ask(Question(root, ""), self._start_timeout_s)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
