"""All MCP servers of this gateway: their connections, their tools for the catalogue, their calls.

The protocol's package takes half a second to load: a gateway without such servers does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError

from gateway.settings import McpSettings
from gateway.tool_catalogue import Catalogue
from servers.context import ToolContext
from servers.errors import NothingDone, ToolDenied, ToolError, ToolNotFound, UpstreamError
from servers.foreign.words import one_line

from .book import Book, Pin, ToolKey
from .config import ServerConfig
from .problems import NeedsLogin, Unusable
from .references import Lookup
from .snapshots import Snapshots
from .status import ServerStatus, status_of

if TYPE_CHECKING:
    from .connection import Connection
    from .listing import Listing

log = structlog.get_logger(__name__)

#: Servers that are looked at at once after a start.
_STARTS = 4
#: Tools with flawed answers that a server's notes name.
_FLAWS = 10
#: Says whose a connection is that only learns what a server offers.
_NOBODY = ""


class McpServers:
    """`open` first, `close` last. A tenant's connections are its own, also to servers that all tenants have."""

    def __init__(
        self,
        configs: Iterable[ServerConfig],
        settings: McpSettings,
        book: Book,
        catalogue: Catalogue,
        clean: Callable[[str], str],
        credential: Lookup,
    ) -> None:
        """`clean` takes secrets out of what servers say; `credential` gives a tenant's own by name."""
        self._credential = credential
        self.configs = tuple(configs)
        self.book = book
        self._settings = settings
        self._clean = clean
        self._connections: dict[tuple[ServerConfig, str], Connection] = {}
        self._listings: dict[ServerConfig, Listing] = {}
        self._snapshots = Snapshots(self.configs, book, catalogue, self._call, self._broke_schema)
        #: What is wrong with the answers of a tool, by its server's name, since somebody reconnected the server.
        self._flaws: dict[ServerConfig, dict[str, str]] = {}
        self._starts = asyncio.Semaphore(_STARTS)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """What is known of the servers is there when this returns; nothing waits for a server."""
        if not self.configs:
            return
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it logs what servers say; what counts is said here
        await self.book.load()
        await self._snapshots.renew()
        self._tasks = [asyncio.create_task(self._discover(each)) for each in self.configs if not each.problem]
        self._tasks.append(asyncio.create_task(self._watch()))

    async def close(self) -> None:
        """End every connection, and the servers that are programs of ours."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in self._connections.values()))

    def visible(self, tenant: str | None) -> list[ServerConfig]:
        """The servers that a tenant has; None: all there are."""
        return [each for each in self.configs if tenant is None or each.owner in ("", tenant)]

    def find(self, module: str, tenant: str | None) -> ServerConfig | None:
        """The server `servers.<module>` as the tenant has it; None: the first of that name."""
        return next((each for each in self.visible(tenant) if each.module == module), None)

    def status(self, config: ServerConfig, tenant: str | None) -> ServerStatus:
        """How a server is for a tenant; None: over all tenants."""
        seen = [
            connection
            for (of, whose), connection in self._connections.items()
            if of == config and (tenant is None or whose in (_NOBODY, tenant))
        ]
        notes = self._listings[config].notes if config in self._listings else ()
        program = self._listings[config].program if config in self._listings else ""
        pins = self.book.of_server(config.owner, config.module)
        rulings = [self.book.ruling(tenant or config.owner, pin) for pin in pins if pin.listed]
        notes = (*notes, *self._snapshots.notes.get(config, ()), *self._flawed(config))
        return status_of(config, seen, pins, rulings, program, tuple(self._clean(note) for note in notes))

    async def reconnect(self, config: ServerConfig, tenant: str | None) -> None:
        """Try now, whatever pause there is; a connection that is up has its list of tools read again."""
        self._flaws.pop(config, None)
        for (of, whose), connection in list(self._connections.items()):
            if of == config and (tenant is None or whose in (_NOBODY, tenant)):
                await connection.close()
                self._connections.pop((of, whose), None)
        with contextlib.suppress(Unusable):
            await self._connection(config, _NOBODY).connected(now=True)

    async def renew(self) -> None:
        """Make the catalogue follow what the book says now."""
        await self._snapshots.renew()

    def _connection(self, config: ServerConfig, tenant: str) -> Connection:
        from .connection import Connection

        key = (config, tenant)
        if key not in self._connections:
            listed = partial(self._listed, config)
            self._connections[key] = Connection(config, self._settings, listed, self._clean, self._credential)
        return self._connections[key]

    async def _listed(self, config: ServerConfig, listing: Listing) -> None:
        await self.book.listed(config.owner, config.module, listing.definitions)
        await self._snapshots.renew()
        self._listings[config] = listing

    async def _discover(self, config: ServerConfig) -> None:
        """Learn what a server offers that has never been seen, however long it takes to come up."""
        if self.book.of_server(config.owner, config.module):
            return
        connection = self._connection(config, config.owner or _NOBODY)
        while True:
            async with self._starts:
                with contextlib.suppress(Unusable):
                    await connection.connected(now=True)
                    return
            await asyncio.sleep(max(connection.retry_s, self._settings.backoff_s))

    async def _watch(self) -> None:
        """What people decide at another gateway, or another gateway sees, counts here soon."""
        while True:
            await asyncio.sleep(self._settings.watch_s)
            try:
                if await self.book.load():
                    await self._snapshots.renew()
            except Exception as error:  # noqa: BLE001 - the database may be away; it is asked again
                log.warning("decisions about MCP tools cannot be read", error=self._clean(str(error)))

    async def _call(self, config: ServerConfig, name: str, ctx: ToolContext, arguments: dict[str, Any]) -> Any:
        """One call of a tool, journaled by the broker around it.

        Raises:
            ToolError
        """
        key = ToolKey(config.owner, config.module, name)
        try:
            return await self._send(config, key, ctx, arguments)
        except ToolError as error:
            if not ctx.resuming:
                raise
            # Whatever became of this attempt: the one before it may have been done.
            raise UpstreamError(
                f"Whether {key.server}.{key.name} was done is not known: its outcome got lost while it was under way. "
                f"{error.message}",
                hint="Look at its effect, then decide in a new cell.",
            ) from None

    async def _send(self, config: ServerConfig, key: ToolKey, ctx: ToolContext, arguments: dict[str, Any]) -> Any:
        from mcp import MCPError

        from .results import error_of, value_of

        self._check(config, key, ctx)
        connection = self._connection(config, ctx.tenant)
        try:
            if self._live() >= self._settings.connections and connection.state not in ("ready", "connecting"):
                raise Unusable("there are too many connections to MCP servers now (mcp.connections)")
            await connection.connected()
            self._check(config, key, ctx)  # again: with a new connection comes a new list of tools
            result = await connection.call(key.name, arguments)
        except Unusable as problem:
            raise _unusable(config, connection, problem) from None
        except (MCPError, ValidationError, TimeoutError, OSError, RuntimeError) as error:
            if isinstance(error, ValidationError):
                self._flaws.setdefault(config, {})[key.name] = "the protocol"
            raise self._cleaned(error_of(error, config.name)) from None
        return value_of(result)

    def _broke_schema(self, config: ServerConfig, name: str) -> None:
        self._flaws.setdefault(config, {})[name] = "the schema that it declares itself"

    def _flawed(self, config: ServerConfig) -> list[str]:
        """In words of ours: results are one tenant's, and these are shown to all."""
        found = sorted(self._flaws.get(config, {}).items())[:_FLAWS]
        return [f"{one_line(name, 60)!r} has answered against {what}: OutputSchemaError" for name, what in found]

    def _live(self) -> int:
        return sum(each.state in ("ready", "connecting") for each in self._connections.values())

    def _check(self, config: ServerConfig, key: ToolKey, ctx: ToolContext) -> Pin:
        """Raises ToolError where the tool may not be called as it is now."""
        pin = self.book.pin(key)
        if config.owner not in ("", ctx.tenant) or pin is None:
            raise ToolNotFound(f"There is no tool {key.server}.{key.name}.")
        if not pin.listed:
            raise ToolNotFound(f"The MCP server {config.name} does not have the tool {key.name!r} any more.")
        if pin.offered is not None:
            raise ToolDenied(
                f"The MCP server {config.name} has changed its definition of {key.name!r}. It is not called until a "
                "person has looked at it.",
                hint=f"Whoever runs the gateway does so with: omniops tools review {config.module}",
            )
        if ctx.resuming and not self.book.ruling(ctx.tenant, pin).idempotent:
            raise NothingDone("It is not sent again.")
        return pin

    def _cleaned(self, error: ToolError) -> ToolError:
        error.message = self._clean(error.message)
        return error


def _unusable(config: ServerConfig, connection: Connection, problem: Unusable) -> ToolError:
    """Nothing was sent."""
    message = f"The MCP server {config.name} cannot be used: {problem}."
    if isinstance(problem, NeedsLogin):
        return NothingDone(message, hint="Whoever runs the gateway sees what to do with: omniops mcp status")
    error = NothingDone(message, data={"retry_after": round(max(problem.retry_s, connection.retry_s), 1)})
    error.retryable = True
    return error
