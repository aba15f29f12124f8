"""One server's connection for one tenant: made when it is needed, watched while it lives, made again when it broke.

A task of its own holds it from beginning to end, as the SDK's task groups want it; callers come from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import httpx2
import structlog
from mcp import Client, MCPError
from mcp.client import IncomingMessage, Transport
from mcp_types import (
    CONNECTION_CLOSED,
    METHOD_NOT_FOUND,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError
from tenacity import RetryCallState, wait_exponential_jitter

from gateway.broker.scrub import Scrubber
from gateway.credentials.known import Secrets
from gateway.settings import McpSettings
from servers.foreign.words import one_line

from .config import Http, ServerConfig
from .http import Answers, answers_here, http_transport, sse_transport
from .listing import Listing, list_tools
from .problems import NeedsLogin, State, Unusable
from .references import Lookup, resolved
from .stdio import Ending, stdio_transport

log = structlog.get_logger(__name__)


#: Seconds between two looks at a server's list, however often it says that it has changed.
_BETWEEN_LISTS = 1.0
#: Seconds after which a connection that breaks is no sign of trouble.
_GOOD_FOR = 30.0
#: Refusals by which nothing was done.
_NOT_DONE = (401, 403, 429)
_ME = Implementation(name="omniops", version=version("omniops-kernels"))


class Connection:
    """A server as one tenant has it."""

    def __init__(
        self,
        config: ServerConfig,
        settings: McpSettings,
        listed: Callable[[Listing], Awaitable[None]],
        clean: Callable[[str], str],
        credential: Lookup,
    ) -> None:
        """`listed` is told what the server offers, before any call; `clean` takes secrets out of what it says;
        `credential` gives those of its owner's that the configuration refers to."""
        self._credential = credential
        self._config = config
        self._settings = settings
        self._listed = listed
        self._clean = clean
        #: What the server was given: it may say so in its tools' descriptions, which kernels and models read.
        self._given = Secrets(config.secrets)
        self._wait = wait_exponential_jitter(
            multiplier=settings.backoff_s, max=settings.backoff_maximum_s, jitter=settings.backoff_s
        )
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Client] | None = None
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._changed = self._leaving = False
        self._broken: Unusable | None = None
        self._logged = self._failed = ""
        self._ending = Ending(self._wake)
        self._failures = self._calls = 0
        self._not_before = self._used = self._since_ready = 0.0
        self.state: State = "misconfigured" if config.problem else "idle"
        self.detail = config.problem
        self.since = datetime.now(UTC)

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """The server's answer as it is; the result is checked by whoever knows the tool's record.

        Raises:
            Unusable: there is no connection, or the endpoint refused the request by its status. Nothing was done.
            MCPError: the server, or the connection, says no.
            ValidationError: the answer is none by the protocol.
            TimeoutError: neither result nor sign of progress within `mcp.silence_s`.
        """
        client = await self.connected()
        clock = asyncio.get_running_loop().time
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        answers = Answers()
        noted = answers_here.set(answers)
        self._calls += 1
        try:
            async with asyncio.timeout(self._settings.silence_s) as silence:

                async def progress(progress: float, total: float | None, message: str | None) -> None:
                    silence.reschedule(clock() + self._settings.silence_s)

                # Not `client.call_tool`: it checks results by patterns that can stop the event loop for hours.
                return await client.session.send_request(request, CallToolResult, progress_callback=progress)
        except MCPError as error:
            if answers.status in _NOT_DONE:
                problem = answers.problem() or Unusable("it refuses")
                if isinstance(problem, NeedsLogin):
                    self._broken = problem
                raise problem from None
            if error.code == CONNECTION_CLOSED or answers.status == 404:
                self._broken = Unusable("the connection broke")
            raise
        finally:
            answers_here.reset(noted)
            self._calls -= 1
            self._used = clock()
            self._wake.set()

    async def connected(self, *, now: bool = False) -> Client:
        """The connection, made if there is none. With `now` the pause after a failure is not kept.

        A pause that ends within `mcp.wait_s` is waited for: a server that has just crashed is as good as there.

        Raises:
            Unusable: with what to do about it.
        """
        if self._config.transport is None:
            raise Unusable(self._config.problem)
        clock = asyncio.get_running_loop().time
        patience = clock() + self._settings.wait_s
        while not self._closing.is_set():
            if self._task is not None and (self._broken or self._ending.over or self._leaving):
                await asyncio.wait([self._task])
            left = self._not_before - clock()
            if self._task is not None and not self._task.done():
                assert self._ready is not None
                return await asyncio.shield(self._ready)
            if left <= 0 or now:
                self._begin()
            elif self._not_before > patience or self.state == "needs login":
                raise Unusable(f"{self.detail}; it is tried again in {left:.0f} s")
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), left)
        raise Unusable("its connection is being closed")

    def _begin(self) -> None:
        """Make a connection: nothing of the one before counts from here on."""
        self._broken, self._ending, self._since_ready, self._leaving = None, Ending(self._wake), 0.0, False
        self._ready = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._become("connecting", f"at the last attempt {self._failed}" if self._failed else "")
        self._task = asyncio.create_task(self._live(self._ready, self._ending))

    @property
    def retry_s(self) -> float:
        """Seconds until the next attempt is worth while."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """End it, and the server where it is a program of ours."""
        self._closing.set()
        self._wake.set()
        if self._task is None:
            return
        grace = 3 * self._settings.stop_grace_s + 2
        _, unfinished = await asyncio.wait([self._task], timeout=grace if self._client else 0.1)
        if unfinished:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=grace)

    async def _live(self, ready: asyncio.Future[Client], ending: Ending) -> None:
        """One connection from its making to its end. Never raises but when cancelled."""
        answers = Answers()
        answers_here.set(answers)
        problem: Unusable | None = None
        try:
            await self._hold(ready, answers, ending)
        except asyncio.CancelledError:
            problem = Unusable("its connection is being closed")
            if not self._closing.is_set():
                raise
        except Exception as error:  # noqa: BLE001 - the boundary: whatever a server does ends here, as its state
            problem = self._problem(error, answers, ending)
        finally:
            self._client = None
            self._end(ready, problem)

    def _end(self, ready: asyncio.Future[Client], problem: Unusable | None) -> None:
        if problem is None:
            self._become("idle")
            problem = Unusable("its connection has ended")
        else:
            asked = min(problem.retry_s, self._settings.backoff_maximum_s)
            self._not_before = asyncio.get_running_loop().time() + max(self._pause(), asked)
            self._become("needs login" if isinstance(problem, NeedsLogin) else "down", str(problem))
            self._failed = self.detail
            if not self._closing.is_set() and self.detail != self._logged:
                self._logged = self.detail
                log.warning("MCP server cannot be used", server=self._config.name, reason=self.detail)
        if not ready.done():
            ready.set_exception(problem)

    def _pause(self) -> float:
        """Seconds before the next attempt. None after a connection that had been good for a while."""
        if self._since_ready and asyncio.get_running_loop().time() - self._since_ready > _GOOD_FOR:
            self._failures = 0
            return 0.0
        attempts = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        self._failures = attempts.attempt_number = min(self._failures + 1, 30)
        return self._wait(attempts) if self._failures > 1 or not self._since_ready else 0.0

    async def _hold(self, ready: asyncio.Future[Client], answers: Answers, ending: Ending) -> None:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._settings.connect_s):
                    client = await self._open(stack, answers, ending)
                    listing = await list_tools(client, self._settings, Scrubber(self._given).known_tree)
                    await self._listed(listing)
            except TimeoutError:  # said now: a program that is ended for it has a status as well
                raise answers.problem() or Unusable(self._silent) from None
            listen = asyncio.create_task(self._listen(client))
            stack.callback(listen.cancel)
            self._client = client
            self._used = self._since_ready = asyncio.get_running_loop().time()
            self._become("ready")
            self._logged = self._failed = ""
            ready.set_result(client)
            try:
                await self._watch(client, ending)
            finally:
                self._client, self._leaving = None, True

    async def _open(self, stack: AsyncExitStack, answers: Answers, ending: Ending) -> Client:
        assert self._config.transport is not None
        config = await resolved(self._config.transport, self._config.owner, self._give)
        if not isinstance(config, Http):
            transport = stdio_transport(self._config.name, config, self._settings, ending, self._clean)
            return await stack.enter_async_context(self._of(transport))
        if config.kind != "sse":
            try:
                return await stack.enter_async_context(self._of(http_transport(config, self._settings)))
            except Exception:
                if config.kind == "http" or not answers.unknown_method:
                    raise
                answers.status = 0
        return await stack.enter_async_context(self._of(sse_transport(config, self._settings)))

    async def _give(self, owner: str, name: str) -> str:
        value = await self._credential(owner, name)
        self._given.add([value])
        return value

    def _of(self, transport: Transport) -> Client:
        """No cache (definitions are kept elsewhere) and nothing that a server may ask of us: no model, no person."""
        return Client(transport, cache=None, message_handler=self._told, client_info=_ME)

    async def _told(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed = True
            self._wake.set()

    async def _listen(self, client: Client) -> None:
        """As of protocol 2026-07-28, changes are told to those who listen."""
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or not (tools and tools.list_changed):
            return
        with contextlib.suppress(Exception):  # without it the next connection sees the change
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._changed = True
                    self._wake.set()

    async def _watch(self, client: Client, ending: Ending) -> None:
        """Until it is closed or idle. Raises Unusable where it broke."""
        clock = asyncio.get_running_loop().time
        listed = clock()
        while not self._closing.is_set():
            self._wake.clear()
            if ending.over or self._broken:
                raise self._broken if self._broken and not ending.over else Unusable(ending.reason)
            until = clock() + 3600 if self._calls else self._used + self._settings.idle_s
            if self._changed:
                until = min(until, listed + _BETWEEN_LISTS)
                if until <= clock():
                    self._changed, listed = False, clock()
                    async with asyncio.timeout(self._settings.connect_s):
                        await self._listed(await list_tools(client, self._settings, Scrubber(self._given).known_tree))
                    continue
            elif until <= clock():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    @property
    def _silent(self) -> str:
        return f"it did not answer within {self._settings.connect_s:g} s"

    def _become(self, state: State, detail: str = "") -> None:
        self.state, self.detail, self.since = state, one_line(self._clean(detail), 300), datetime.now(UTC)

    def _problem(self, error: BaseException, answers: Answers, ending: Ending) -> Unusable:
        """What people are told of a failure."""
        causes = list(_leaves(error))
        for cause in causes:
            if isinstance(cause, Unusable):
                return cause
        if (refused := answers.problem()) is not None:
            return refused
        if ending.reason:
            return Unusable(ending.reason)
        for cause in causes:
            match cause:
                case TimeoutError():
                    return Unusable(self._silent)
                case httpx2.ConnectError():
                    return Unusable("nothing answers at its address")
                case httpx2.HTTPError():
                    return Unusable(f"the connection failed ({type(cause).__name__}: {cause})")
                case ValidationError():
                    return Unusable("its answers break the protocol")
                case MCPError() if cause.code == METHOD_NOT_FOUND:
                    return Unusable("it is no MCP server, or speaks another version of the protocol")
                case MCPError():
                    return Unusable(f"it says: {cause.message}")
        log.info("MCP connection failed", server=self._config.name, error=self._clean(repr(causes[0])))
        return Unusable(f"the connection failed ({type(causes[0]).__name__})")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
