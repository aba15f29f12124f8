"""The stdio transport: a server of this machine's, bounded, and ended with the gateway however that ends.

As `mcp.client.stdio` does it (newline-delimited JSON-RPC; at the end stdin is closed, then the process tree ended),
with what a gateway needs besides: a bound for each message, stderr into the log, and `child.py` in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from gateway.settings import McpSettings
from servers.foreign.words import one_line

from .problems import Unusable
from .transports import Stdio

log = structlog.get_logger(__name__)

_CHILD = str(Path(__file__).with_name("child.py"))
#: Longest line of a server's stderr that is logged, in characters, and how many of them a minute.
_STDERR_CHARS, _STDERR_LINES = 500, 60

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@dataclass
class Ending:
    """How a connection came to its end, for people."""

    #: Set when it came.
    wake: asyncio.Event
    reason: str = ""

    @property
    def over(self) -> bool:
        return bool(self.reason)

    def came(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.wake.set()


def environment(config: Stdio) -> dict[str, str]:
    """What the server sees: the little that programs need (PATH, HOME, USER...), and what its own entry names."""
    return {**get_default_environment(), **_locale(), **config.env}


def check_command(config: Stdio) -> None:
    """Raises Unusable where the program or its folder is not there."""
    path = environment(config).get("PATH")
    if shutil.which(config.command, path=path) is None and not (Path(config.cwd or ".") / config.command).is_file():
        raise Unusable(f"the program {config.command!r} is not installed, or not in PATH")
    if config.cwd is not None and not Path(config.cwd).is_dir():
        raise Unusable(f"its folder {config.cwd} is not there")


@asynccontextmanager
async def stdio_transport(
    name: str, config: Stdio, settings: McpSettings, ending: Ending, clean: Callable[[str], str]
) -> AsyncIterator[Streams]:
    """The server's streams while it runs.

    Raises:
        Unusable: it cannot be started.
    """
    check_command(config)
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-I",
            "-S",
            _CHILD,
            str(os.getpid()),
            str(settings.stop_grace_s),
            config.command,
            *config.args,
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(config),
        cwd=config.cwd,
        start_new_session=True,
        limit=settings.message_mb * 1024 * 1024,
    )
    into, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, out_of = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(work)
        for work in (_read(process, into, ending), _write(process, out_of, into), _log(name, process, clean))
    ]
    try:
        yield incoming, outgoing
    finally:
        await asyncio.shield(asyncio.ensure_future(_stop(process, settings.stop_grace_s)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (into, incoming, outgoing, out_of):
            stream.close()


async def _read(
    process: asyncio.subprocess.Process, into: MemoryObjectSendStream[SessionMessage | Exception], ending: Ending
) -> None:
    assert process.stdout is not None
    with into:
        try:
            while line := await process.stdout.readline():
                await into.send(_message(line))
        except ValueError:
            ending.came("it sent a message over the limit (mcp.message_mb)")
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the session is over
        await _exited(process, ending)


def _message(line: bytes) -> SessionMessage | Exception:
    """A line that is no message, such as a greeting, is skipped by the session."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except (ValidationError, ValueError) as error:
        return error


async def _exited(process: asyncio.subprocess.Process, ending: Ending) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await process.wait()
    status = process.returncode
    ending.came("it closed its output" if status is None else f"it ended with status {status}")


async def _write(
    process: asyncio.subprocess.Process,
    out_of: MemoryObjectReceiveStream[SessionMessage],
    into: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    assert process.stdin is not None
    try:
        async with out_of:
            async for each in out_of:
                text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        into.close()  # so that nobody waits for an answer


async def _log(name: str, process: asyncio.subprocess.Process, clean: Callable[[str], str]) -> None:
    """Its stderr into the log, so much of it a minute."""
    assert process.stderr is not None
    clock = asyncio.get_running_loop().time
    minute, lines = clock(), 0
    while chunk := await process.stderr.read(16 * 1024):
        if clock() - minute > 60:
            minute, lines = clock(), 0
        for line in chunk.decode(errors="replace").splitlines():
            lines += 1
            if lines <= _STDERR_LINES and line.strip():
                log.info("MCP server says", server=name, text=one_line(clean(line[: 2 * _STDERR_CHARS]), _STDERR_CHARS))


async def _stop(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """Close its stdin; who has not ended by `grace_s` seconds after that is ended, with all that it started."""
    if process.stdin is not None:
        process.stdin.close()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number) if number == signal.SIGTERM else os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s + (1 if number else 0)):
                await process.wait()
                return


def _locale() -> Mapping[str, str]:
    return {key: os.environ[key] for key in ("LANG", "LC_ALL", "TMPDIR", "TZ") if key in os.environ}
