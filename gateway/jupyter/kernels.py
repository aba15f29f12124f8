"""The kernels that Jupyter clients made here: each is a session of the platform, its id the session's as a UUID."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from gateway.jupyter.about import About
from gateway.jupyter.hub import Hub
from gateway.jupyter.mailbox import GONE, RESTART
from gateway.jupyter.rows import AwayRow, JupyterRows
from gateway.peers.errors import OwnedElsewhere
from gateway.saving import PASSING
from gateway.session_errors import SessionError, SessionNotFound
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.transcripts.errors import TranscriptError
from gateway.types import CellRun
from kernel_pool.kernel import Kernel
from kernel_pool.types import Profile, UnknownProfile

log = structlog.get_logger(__name__)

#: What notebooks ask for that were written elsewhere; it stands for the profile of role analyst.
USUAL = "python3"
#: Other names of it that Jupyter's own servers understand.
ALIASES = {"python": USUAL}


@dataclass(frozen=True)
class Away:
    """A kernel that another gateway has, as the database knows it."""

    about: About
    state: str
    last_activity: datetime
    connections: int = 0


class JupyterKernels:
    """All of this gateway's. Methods belong to one event loop."""

    def __init__(self, rows: JupyterRows, sessions: Sessions, settings: Settings, usual: str) -> None:
        """`usual`: the profile that `python3` stands for."""
        self.rows = rows
        self._sessions = sessions
        self._settings = settings
        self._usual = usual
        self._hubs: dict[str, Hub] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Those that the gateway before may have left, until it is known which.
        self._expected: dict[str, About] = {}
        sessions.told.append(self._bind)
        sessions.requests.resumed.append(self._resume)
        sessions.care.in_use = self._in_use
        sessions.moves.evicted.append(self._evict)
        sessions.moves.recovering.append(self._recovering)

    def specs(self, profiles: tuple[Profile, ...]) -> dict[str, Profile]:
        """What a client may ask for, by name; the first is the default."""
        usual = next((profile for profile in profiles if profile.name == self._usual), profiles[0])
        return {USUAL: usual, **{profile.name: profile for profile in profiles}}

    async def start(
        self, tenant: str, principal: str, name: str, profiles: tuple[Profile, ...], env: Mapping[str, str], title: str
    ) -> Hub:
        """A new kernel, in a session of its own. `name`: a kernelspec, "" for the default.

        Raises:
            UnknownProfile, BadInjection, QuotaExceeded
            KernelPoolError: no kernel is to be had.
            OSError: the transcript cannot be written.
        """
        name = name or USUAL
        profile = self.specs(profiles).get(name)
        if profile is None:
            names = ", ".join(self.specs(profiles))
            raise UnknownProfile(f"there is no kernelspec {name[:64]!r}; there are: {names}")
        info = await self._sessions.create(
            tenant, principal, "analyst", title, profile=profile.name, env=env or None, kernel=True
        )
        try:
            await self.rows.add_kernel(info.id, name)
        except BaseException:
            await self._sessions.end(info.id)
            raise
        return self._hub(About(info.id, tenant, name))

    @asynccontextmanager
    async def adopting(self) -> AsyncIterator[None]:
        """While sessions of the gateway before are taken over, those that Jupyter clients made are known."""
        for row in await self.rows.live():
            self._expected[row.session] = About(row.session, row.tenant, row.name)
        yield
        self._expected.clear()

    def all(self, tenant: str | None) -> list[Hub]:
        """Those at hand, of one tenant or of all."""
        return [hub for hub in self._hubs.values() if tenant is None or hub.about.tenant == tenant]

    async def seen(self, tenant: str | None) -> list[Hub | Away]:
        """Those at hand, and those that other gateways have."""
        away = [_away(row) for row in await self.rows.away(tenant) if row.session not in self._hubs]
        return [*self.all(tenant), *away]

    async def look(self, id: str, tenant: str | None) -> Hub | Away:
        """As `find`, wherever it is. Raises SessionNotFound."""
        try:
            return await self.find(id, tenant)
        except OwnedElsewhere:
            rows = await self.rows.away(tenant, _session(id))
            if not rows:
                raise SessionNotFound(id) from None
            return _away(rows[0])

    async def find(self, id: str, tenant: str | None) -> Hub:
        """A kernel by its id. `tenant`: the caller's; one of another tenant is not found.

        Raises:
            SessionNotFound
            OwnedElsewhere: another gateway that lives has it.
        """
        session = _session(id)
        hub = self._hubs.get(session)
        if hub is not None:
            if tenant is not None and hub.about.tenant != tenant:
                raise SessionNotFound(id)
            return hub
        row = await self.rows.kernel(session, tenant)
        if row is None:
            raise SessionNotFound(id)
        if session not in self._sessions.here and await self.rows.away(tenant, session):
            raise OwnedElsewhere(session, "")
        return self._hub(About(row.session, row.tenant, row.name))

    async def wake(self, hub: Hub) -> None:
        """A client is there: a kernel whose gateway is gone is on its way back."""
        if hub.about.session in self._sessions.here:
            return
        try:
            await self._sessions.open(hub.about.session)
        except (SessionError, TranscriptError, *PASSING) as error:
            log.warning("a kernel does not come back", session=hub.about.session, error=str(error))

    def _recovering(self, session: str, work: asyncio.Task[Any]) -> None:
        hub = self._hubs.get(session)
        if hub is not None:
            hub.expect(work)

    async def end(self, hub: Hub) -> None:
        """End a kernel and its session."""
        with contextlib.suppress(SessionNotFound):
            await self._sessions.end(hub.about.session)
        await self._drop(hub)

    def send_away(self, *, kept: bool, busy: bool) -> None:
        """The gateway stops: close the websockets of kernels that run nothing, and with `busy` all of them.

        `kept`: the kernels wait for the next gateway, and clients are told to come again.
        """
        code, reason = (RESTART, "the gateway restarts: come again") if kept else (GONE, "the gateway stops")
        for hub in self._hubs.values():
            if busy or hub.state != "busy":
                hub.send_away(code, reason)

    async def close(self) -> None:
        """Let every client go."""
        hubs, self._hubs = list(self._hubs.values()), {}
        for hub in hubs:
            await hub.close("the gateway stops")

    def _hub(self, about: About) -> Hub:
        hub = self._hubs.get(about.session)
        if hub is None:
            hub = self._hubs[about.session] = Hub(about, self._sessions, self._settings, self._over)
            kernel = self._sessions.kernel(about.session)
            if kernel is not None:
                hub.bind(kernel)
            elif self._sessions.requests.lost(about.session):
                hub.state = "dead"
        return hub

    def _bind(self, session: str, kernel: Kernel) -> None:
        hub = self._hubs.get(session)
        if hub is not None:
            hub.bind(kernel)
        elif (about := self._expected.pop(session, None)) is not None:
            hub = self._hubs[session] = Hub(about, self._sessions, self._settings, self._over)
            hub.adopt(kernel)

    def _resume(self, session: str, msg_id: str, run: asyncio.Task[CellRun]) -> None:
        hub = self._hubs.get(session)
        if hub is not None:
            hub.resume(msg_id, run)

    def _in_use(self, session: str) -> bool:
        hub = self._hubs.get(session)
        return hub is not None and hub.connections > 0

    def _over(self, hub: Hub) -> None:
        task = asyncio.create_task(self._drop(hub))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _evict(self, session: str) -> None:
        hub = self._hubs.pop(session, None)
        if hub is not None:
            await hub.close("another gateway has the kernel by now; connect again")

    async def _drop(self, hub: Hub) -> None:
        if self._hubs.get(hub.about.session) is hub:
            del self._hubs[hub.about.session]
        await hub.close("the kernel has ended")


def _session(id: str) -> str:
    try:
        return uuid.UUID(id).hex
    except ValueError:
        raise SessionNotFound(id) from None


def _away(row: AwayRow) -> Away:
    state = "busy" if row.busy else "idle"
    return Away(About(row.session, row.tenant, row.name), state, row.used.astimezone(UTC))


def kernel_id(session: str) -> str:
    """As Jupyter clients know a session's kernel."""
    return str(uuid.UUID(session))
