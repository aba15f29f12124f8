"""What tools and queries mean, as vectors of the local embedding model; those of tools are kept in a file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from gateway.settings import FindingSettings

Floats = npt.NDArray[np.float32]
Result = TypeVar("Result")

#: What the kept vectors were made with; another model's are not taken for them.
MODEL = "all-MiniLM-L6-v2 int8"
#: Texts that go through the model between two looks at whether to stop: a quarter of a second.
BATCH = 32
#: Queries whose vectors are remembered.
REMEMBERED = 4_096
#: How the making of tools' vectors gives way to everything else on the machine.
NICENESS = 19


class Embedder(Protocol):
    def embed_blocking(self, texts: Sequence[str]) -> list[list[float]]: ...


class ToolVectors:
    """One thread makes the vectors of tools, with the least priority; another answers queries."""

    def __init__(self, embedder: Embedder, file: Path, settings: FindingSettings) -> None:
        self.settings = settings
        self._embedder = embedder
        self._file = file
        self._making = ThreadPoolExecutor(1, thread_name_prefix="tool-vectors", initializer=_give_way)
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="tool-queries")
        self._kept: sqlite3.Connection | None = None
        self._queries: OrderedDict[str, Floats] = OrderedDict()
        self._remembering = threading.Lock()

    async def of_tools(self, texts: Sequence[str]) -> Floats:
        """A row for each text. What is not in the file is made: 10,000 take a minute or two of one processor.

        Raises:
            ModelMissing
        """
        loop = asyncio.get_running_loop()
        rows: list[Floats] = [np.zeros(0, dtype=np.float32)] * len(texts)
        # texts of like length share a batch, so that little is padded
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            made = await loop.run_in_executor(self._making, self._of_batch, [texts[i] for i in batch])
            for place, row in zip(batch, made, strict=True):
                rows[place] = row
        return np.stack(rows)

    def of_query(self, text: str) -> Floats:
        """A query's vector. Blocks for a run of the model, some milliseconds.

        Raises:
            ModelMissing
        """
        with self._remembering:
            if text in self._queries:
                self._queries.move_to_end(text)
                return self._queries[text]
        vector = np.array(self._embedder.embed_blocking([text])[0], dtype=np.float32)
        with self._remembering:
            self._queries[text] = vector
            while len(self._queries) > REMEMBERED:
                self._queries.popitem(last=False)
        return vector

    async def answer(self, search: Callable[[], Result]) -> Result:
        """Run a search that asks for queries' vectors, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._asking, search)

    async def close(self) -> None:
        """Wait for what the threads are at, and end them."""
        for pool in (self._making, self._asking):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _of_batch(self, texts: list[str]) -> list[Floats]:
        kept = self._open()
        digests = [_digest(text) for text in texts]
        marks = ",".join("?" * len(digests))
        found = {
            bytes(digest): np.frombuffer(vector, dtype=np.float16).astype(np.float32)
            for digest, vector in kept.execute(f"SELECT digest, vector FROM vectors WHERE digest IN ({marks})", digests)  # noqa: S608
        }
        fresh = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in found}
        if fresh:
            made = np.array(self._embedder.embed_blocking(list(fresh.values())), dtype=np.float16)
            rows = [(digest, row.tobytes()) for digest, row in zip(fresh, made, strict=True)]
            with kept:
                kept.executemany("INSERT OR IGNORE INTO vectors (digest, vector) VALUES (?, ?)", rows)
                kept.execute(
                    "DELETE FROM vectors WHERE id <= (SELECT max(id) FROM vectors) - ?", (self.settings.kept_vectors,)
                )
            found |= zip(fresh, made.astype(np.float32), strict=True)
        return [found[digest] for digest in digests]

    def _open(self) -> sqlite3.Connection:
        if self._kept is None:
            self._kept = sqlite3.connect(self._file, timeout=10, check_same_thread=False)
            self._kept.execute("PRAGMA journal_mode=WAL")
            self._kept.execute("PRAGMA synchronous=OFF")  # what is lost is made again
            self._kept.execute(
                "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, digest BLOB UNIQUE, vector BLOB NOT NULL)"
            )
        return self._kept


def _digest(text: str) -> bytes:
    return hashlib.blake2b(f"{MODEL}\0{text}".encode(errors="replace"), digest_size=16).digest()


def _give_way() -> None:
    """This thread, on Linux; where threads have no priority of their own it is left."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
