"""Pages are read in a process of their own: without the gateway's memory and environment, with little memory and
processor time. One that takes too much ends, and the next page gets a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import struct
import sys
from pathlib import Path

import msgspec

from .addresses import Refused
from .page import Content, Source

_LENGTH = struct.Struct("!I")
#: On a busy machine processor time is slow to come: a page is waited for so many times as long.
_PATIENCE = 10
_GRACE_S = 0.5
#: Bytes of one answer.
_MOST = 64 * 1024 * 1024
_ROOT = Path(__file__).parents[2]


class Reader:
    """Reads one page at a time. Close it."""

    def __init__(self, *, seconds: float = 10.0, memory_bytes: int = 1024**3) -> None:
        """`seconds`: of processor time for one page, after which it is given up."""
        self._seconds = seconds
        self._memory = memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def read(self, source: Source) -> Content:
        """
        Raises:
            Refused: it cannot be read within the limits.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds * _PATIENCE):
                    return await self._exchange(msgspec.msgpack.encode(source))
            except TimeoutError:
                await self._stop()
                raise Refused(f"takes over {self._seconds:g} s to read") from None
            except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError):
                if await self._stop() == -signal.SIGPROF:
                    raise Refused(f"takes over {self._seconds:g} s to read") from None
                raise Refused("cannot be read: its reader broke down over it") from None
            except BaseException:
                # an answer that nobody waits for any more would be taken for the next page's
                await self._stop()
                raise

    async def close(self) -> None:
        async with self._turn:
            await self._stop()

    async def _exchange(self, frame: bytes) -> Content:
        if self._process is None:
            self._process = await self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(_LENGTH.pack(len(frame)) + frame)
        await stdin.drain()
        (length,) = _LENGTH.unpack(await stdout.readexactly(_LENGTH.size))
        if length > _MOST:
            raise OSError(f"an answer of {length} bytes")
        return msgspec.msgpack.decode(await stdout.readexactly(length), type=Content)

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "servers.scraping.reader",
            str(self._memory),
            str(self._seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_ROOT,
            env={"PATH": os.defpath},
            start_new_session=True,
        )

    async def _stop(self) -> int | None:
        """Its exit status, where there was one."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                assert process.stdin is not None
                process.stdin.close()
                return await process.wait()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait()


def main() -> None:
    """The process: frames in, frames out, until its input ends."""
    from .markup import read

    most, seconds = int(sys.argv[1]), float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(_LENGTH.size):
        frame = source.read(_LENGTH.unpack(head)[0])
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process
        content = msgspec.msgpack.encode(read(msgspec.msgpack.decode(frame, type=Source)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write(_LENGTH.pack(len(content)) + content)
        out.flush()


if __name__ == "__main__":
    main()
