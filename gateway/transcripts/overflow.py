"""What becomes of the outputs of a cell that says more than memory is to hold: a thread writes them to a file, and the
kernel waits where the disk is slower than the cell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import orjson
import structlog

from gateway.transcripts.clean import Json
from gateway.transcripts.output_file import Ended, NoRoom, OutputFile, Room
from gateway.transcripts.redaction import Redaction
from gateway.types import Spooled
from kernel_pool.outputs import Earlier
from kernel_pool.types import CellResult

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: More times what may wait is not taken: an interrupted cell is read on, whatever the disk does.
_TOO_MUCH = 4
#: Of a cell that goes on: more than is kept in memory of any, bytes.
_BEGINNING = 64 * 2**20
#: Stands for "forget what came so far".
_CLEAR: dict[str, Json] = {"output_type": "clear_output"}


@dataclass(frozen=True)
class Spooling:
    """How it is done. `room`: None for outputs that are only compared; `waiting`: bytes that may wait for the disk."""

    redaction: Redaction
    room: Room | None
    waiting: int = 4 * 2**20
    sync: bool = True

    def cell(self, path: Path | None) -> CellOverflow:
        """For a cell that is about to run. `path`: of its file; None: nothing is written."""
        return CellOverflow(path, lambda: OutputFile(path, self.redaction, self.room, sync=self.sync), self.waiting)


class CellOverflow:
    """One cell's: a `kernel_pool.outputs.Overflow`. Belongs to one event loop; the file is made when there is need."""

    def __init__(self, path: Path | None, make: Callable[[], OutputFile], waiting: int) -> None:
        self._path = path
        self._make = make
        self._most = waiting
        self._file: OutputFile | None = None
        self._hold: Callable[[bool], None] = lambda wait: None
        self._holding = False
        self._queue: list[tuple[Mapping[str, Json], int, int]] = []
        self._waiting = 0
        #: Bytes that came, and those that the file has taken.
        self._came = self._taken = 0
        self._failed = ""
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def why(self) -> str:
        return self._failed

    def begin(self, hold: Callable[[bool], None]) -> None:
        self._hold = hold
        if self._thread is None:
            # its own: a disk that hangs is to keep nobody else's work waiting
            self._thread = ThreadPoolExecutor(1, "outputs")

    async def earlier(self) -> Earlier | None:
        """What a gateway before this one has written of the cell, which goes on; None where it has written nothing."""
        if self._path is None or not self._path.exists():
            return None
        self._thread = ThreadPoolExecutor(1, "outputs")
        file = self._make()
        try:
            position = await self._run(file.go_on)
            if position:
                self._file = file
                return Earlier(await self._run(lambda: self._beginning(file)), position)
        except (OSError, ValueError) as error:
            log.error("outputs of a cell cannot be gone on with", path=str(self._path), error=str(error))
        return None

    def _beginning(self, file: OutputFile) -> list[dict[str, Json]]:
        """As much of it as memory is to hold, a line more at least."""
        found, size = [], 0
        for output in file.so_far():
            found.append(output)
            size += len(orjson.dumps(output))
            if size > _BEGINNING:
                break
        return found

    async def anew(self) -> None:
        """It is another cell's beginning: nothing of what was written counts."""
        if self._file is not None:
            await self._run(self._file.remove)
            self._file = None

    def put(self, output: Mapping[str, Json], size: int, position: int) -> bool:
        if not self._failed and self._waiting > _TOO_MUCH * self._most:
            self._failed = "the disk of the transcripts is too slow for a cell that is interrupted"
        if self._failed:
            return False
        self._queue.append((output, size, position))
        self._waiting += size
        self._came += size
        if self._waiting > self._most and not self._holding:
            self._holding = True
            self._hold(True)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return True

    def clear(self) -> None:
        self.put(_CLEAR, 0, 0)

    async def close(self, result: CellResult) -> Ended | None:
        """The cell is over. Its file, on the disk; None where `result` has all of its outputs. Never raises OSError."""
        thread = self._thread
        if thread is None:
            return None
        try:
            if self._task is not None:
                await self._task
            if self._file is None:
                return None
            if result.cut is None:
                await self._run(self._file.remove)
                return None
            return await self._end(self._file, result.cut)
        except OSError as error:
            log.warning("a file of outputs cannot be removed", error=str(error))
            return None
        finally:
            thread.shutdown(wait=False)
            self._thread = None

    async def leave(self) -> None:
        """The cell goes on without this gateway."""
        if self._thread is not None:
            if self._task is not None:
                self._task.cancel()
            if self._file is not None:
                await self._run(self._file.close)
            self._thread.shutdown(wait=False)

    async def _end(self, file: OutputFile, head: int) -> Ended:
        ended: Ended | None = None
        if not self._failed:
            try:
                ended = await self._run(file.end)
            except (OSError, NoRoom) as error:
                self._fail(error)
        lost = self._came - self._taken + file.pending if self._failed else 0
        if ended is None:
            ended = await self._run(file.end_short)
        return replace(ended, spooled=msgspec.structs.replace(ended.spooled, head=head, lost=lost, why=self._failed))

    async def _drain(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            size = sum(each for _, each, _ in batch)
            try:
                await self._run(lambda batch=batch: self._write(batch))  # type: ignore[misc]
            except (OSError, NoRoom) as error:
                self._fail(error)
                self._queue, self._waiting, size = [], 0, 0
            self._waiting -= size
            if self._holding and self._waiting <= self._most // 2:
                self._holding = False
                self._hold(False)

    def _write(self, batch: list[tuple[Mapping[str, Json], int, int]]) -> None:
        if self._file is None:
            file = self._make()
            file.open()
            self._file = file
        position = 0
        for output, size, came in batch:
            position = came
            if output is _CLEAR:
                self._file.clear()
            else:
                self._file.take(output)
            self._taken += size
        if position:
            self._file.mark(position)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError):
            self._failed = f"the cell's output cannot be written: {error.strerror}"
        else:
            self._failed = str(error)
        log.error("outputs of a cell cannot be kept", error=str(error))

    async def _run(self, work: Callable[[], T]) -> T:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def told(
    result: CellResult, ended: Ended | None, redaction: Redaction
) -> tuple[CellResult, Spooled | None, tuple[Mapping[str, Json], ...]]:
    """The result as it is shown: in place of the outputs that the file alone has, a notice of it and their end.

    Also what the record says of the file; and the notice and that end alone.
    """
    if ended is None or result.cut is None:
        return result, None, ()
    spooled = ended.spooled
    head = [dict(each) for each in result.outputs[: result.cut]]
    if head and head[-1]["output_type"] == "stream":  # not the first half of a secret, whose second half is cut off
        text = head[-1]["text"]
        head[-1]["text"] = text[: len(text) - redaction.held(text)]
    lost = f" {spooled.lost:,} bytes are lost: {spooled.why}." if spooled.why else ""
    notice = (
        f"\n[{result.output_bytes:,} bytes of output. Their beginning is above, their end below; all of them are in "
        f"the file {spooled.file} of {spooled.bytes:,} bytes, SHA-256 {spooled.sha256}.{lost}]\n"
    )
    shown = {"output_type": "stream", "name": "stderr", "text": notice}
    outputs = (*head, shown, *ended.tail, *result.outputs[result.cut :])
    reason = result.reason or (spooled.why and f"{spooled.lost:,} bytes of its output are lost: {spooled.why}")
    result = replace(result, outputs=outputs, dropped_bytes=result.dropped_bytes + spooled.lost, reason=reason)
    return result, spooled, (shown, *ended.tail)
