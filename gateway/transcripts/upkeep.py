"""What follows on a record, soon after it was added to: its head in the database, and the notebook of a large one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from gateway.peers.errors import Fenced
from gateway.saving import PASSING
from gateway.transcripts.errors import TranscriptError
from gateway.transcripts.index import Index
from gateway.transcripts.store import TranscriptStore
from gateway.transcripts.transcript import Transcript

log = structlog.get_logger(__name__)

#: What is added within this time is written at once, seconds.
_TOGETHER_S = 0.2
#: Time between two attempts to write what could not be written.
_AGAIN_S = 2.0
#: A notebook is not written again until this many times the time has passed that it took.
_REST = 20


@dataclass
class _Behind:
    """A transcript that is behind its record. `due`: when its notebook is to be written, loop time."""

    transcript: Transcript
    due: float
    indexed: bool = False


class Upkeep:
    """Keeps up with the transcripts of a store. Methods belong to one event loop."""

    def __init__(self, store: TranscriptStore, index: Index, *, notebook_after_s: float) -> None:
        self._index = index
        self._after_s = notebook_after_s
        self._behind: dict[str, _Behind] = {}
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()
        store.keeping.changed = self.changed

    def changed(self, transcript: Transcript) -> None:
        """The transcript was added to."""
        session = transcript.header.session
        after = max(self._after_s, _REST * transcript.notebook_s)
        found = self._behind.setdefault(session, _Behind(transcript, asyncio.get_running_loop().time() + after))
        found.transcript, found.indexed = transcript, False
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_TOGETHER_S)
            try:
                await self.flush()
                later = await self._notebooks(asyncio.get_running_loop().time())
            except PASSING as error:
                log.warning("transcripts cannot be indexed at present", error=str(error))
                later = _AGAIN_S
            except Exception as error:  # noqa: BLE001 - the other transcripts are to be kept up all the same
                log.error("transcripts cannot be kept up", error=str(error))
                later = _AGAIN_S
            if later is not None:
                asyncio.get_running_loop().call_later(later, self._wake.set)

    async def flush(self) -> None:
        """The database knows every record as far as it has come. Raises what keeps it from that."""
        async with self._flushing:
            for session, behind in list(self._behind.items()):
                if not behind.indexed:
                    behind.indexed = True
                    try:
                        if behind.transcript.unmirrored:
                            await behind.transcript.mirror()
                        await self._index.put(behind.transcript.facts)
                    except Fenced:  # its new gateway keeps up with it
                        self._behind.pop(session, None)
                        continue
                    except BaseException:
                        behind.indexed = False
                        raise
                if not behind.transcript.stale and behind.indexed:
                    self._behind.pop(session, None)

    async def close(self) -> None:
        """All of it, as far as it can be had."""
        try:
            await self._notebooks(float("inf"))
            await self.flush()
        except PASSING as error:
            log.error("transcripts could not be indexed", error=str(error))

    async def _notebooks(self, now: float) -> float | None:
        """Write those that are due; seconds until the next is, None for none."""
        later: float | None = None
        for session, behind in list(self._behind.items()):
            wait = behind.due - now
            if wait <= 0 and behind.transcript.stale:
                try:
                    await behind.transcript.write_notebook()
                except (OSError, TranscriptError) as error:
                    log.warning("a notebook cannot be written", session=session, error=str(error))
                    behind.due = asyncio.get_running_loop().time() + _AGAIN_S
                    wait = _AGAIN_S
            if behind.transcript.stale:
                later = wait if later is None else min(later, wait)
            elif behind.indexed:
                self._behind.pop(session, None)
        return later
