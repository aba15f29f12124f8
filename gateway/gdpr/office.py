"""Exports and erasures, put together of what the gateway keeps; what the tools of `servers.gdpr` work with."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog

from gateway.broker.contexts import Contexts
from gateway.broker.journal import Journal
from gateway.db import Database
from gateway.gdpr import parts
from gateway.gdpr.bundle import Bundle, TooLarge
from gateway.gdpr.erasing import Erasures, Report, passing
from gateway.gdpr.exports import Exports
from gateway.gdpr.folders import folders
from gateway.gdpr.links import Links
from gateway.gdpr.registry import TABLES
from gateway.gdpr.stepping import in_thread, stepped
from gateway.gdpr.store import ids, store_parts
from gateway.gdpr.subject import Subject, asked, resolve
from gateway.identity.audit import Audit
from gateway.sessions import Sessions
from gateway.settings import GdprSettings
from gateway.transcripts.erasure import Eraser
from gateway.transcripts.store import TranscriptStore
from gateway.transcripts.upkeep import Upkeep
from gateway.types import Grant
from servers.context import Progress
from servers.errors import ToolInputError, ToolNotFound, UpstreamError
from servers.gdpr.office import Erased, ErasureParts, Exported, ExportParts, Kept
from servers.woocommerce.client import Store

if TYPE_CHECKING:
    from gateway.data_dir import DataDir

log = structlog.get_logger(__name__)

#: Time between two words of how an erasure goes, seconds.
_TELL_S = 1.0
#: What is not of this gateway's keeping, and is said to be.
_ELSEWHERE = {
    "tenant_tables": "Tables in the shop's own database (supabase) are not looked into.",
    "store": "The store's own data stays in the store, whose orders are accounts kept by law. Erase the account there.",
}


@dataclass(frozen=True)
class _Keeping:
    """Where it all is."""

    settings: GdprSettings
    database: Database
    journal: Journal
    upkeep: Upkeep
    transcripts: TranscriptStore
    contexts: Contexts
    sessions: Sessions


class Office:
    """One gateway's. `for_call` is what a tool gets of it."""

    def __init__(self, keeping: _Keeping, exports: Exports, erasures: Erasures, links: Links) -> None:
        self._keeping = keeping
        self.exports = exports
        self.erasures = erasures
        self.links = links
        self.audit = Audit(keeping.database)
        self._running: dict[str, asyncio.Task[None]] = {}

    def for_call(self, grant: Grant, key: str) -> OfficeOfCall:
        """`key`: the call's idempotency key."""
        return OfficeOfCall(self, grant, key)

    async def look(self) -> None:
        """Remove files that have expired, and go on with erasures that are not done."""
        await self.exports.tidy()
        for id in await self.erasures.open():
            await self.go_on(id)

    async def run(self) -> None:
        """For ever: `look`."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - the next look is made all the same
                level = log.warning if passing(error) else log.error
                level("exports and erasures cannot be looked after at present", error=str(error))
            await asyncio.sleep(self._keeping.settings.look_s)

    async def go_on(self, id: str) -> None:
        """With an erasure, as far as it goes now; joins who is about it already."""
        task = self._running.get(id)
        if task is None:
            task = self._running[id] = asyncio.create_task(self.erasures.work(id))
            task.add_done_callback(lambda _: self._running.pop(id, None))
        await asyncio.shield(task)

    async def close(self) -> None:
        """What is under way is left to the next gateway."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def subject(self, tenant: str, email: str, customer: int, problems: list[str]) -> Subject:
        """Raises ToolInputError."""
        try:
            found = asked(tenant, email, customer)
        except ValueError as error:
            raise ToolInputError(str(error)) from None
        store = await self.store(tenant, problems)
        if store is not None:
            found = await ids(store, found, problems)
        return await resolve(self._keeping.database, self.erasures.key, found)

    async def store(self, tenant: str, problems: list[str]) -> Store | None:
        """The tenant's, if it has one that can be asked."""
        try:
            shop = await self._keeping.contexts.shop(tenant)
        except Exception as error:  # noqa: BLE001 - a credential that is missing: the rest is exported all the same
            log.warning("a store cannot be asked about a person", tenant=tenant, error=str(error))
            problems.append(f"store: {error}")
            return None
        return None if shop is None else Store(shop, self._keeping.contexts.http)

    async def export(self, grant: Grant, email: str, customer: int) -> AsyncGenerator[Progress | Exported, None]:
        """See `servers.gdpr.office.DataProtection`."""
        keeping = self._keeping
        problems: list[str] = []
        subject = await self.subject(grant.tenant, email, customer, problems)
        await keeping.journal.reads.flush_all()
        await keeping.upkeep.flush()
        id = secrets.token_hex(16)
        self.exports.writing.add(id)
        try:
            expires = await self.exports.begin(id, subject, grant.principal, grant.session, keeping.settings.link_s)
            await self.audit.note(grant.principal, grant.tenant, "gdpr.export", f"{subject.pseudonyms[0]} {id}")
            path = self.exports.path(grant.tenant, id)
            with await in_thread(Bundle, path, keeping.settings.largest_mb * 2**20) as bundle:
                async with aclosing(self._parts(bundle, subject, grant.session, problems)) as steps:
                    async for rows, size, at in steps:
                        yield Progress(rows, None, "rows", f"{size / 1e6:,.1f} MB, {at}")
                about = _about(id, subject, expires, problems)
                size, sha256 = await in_thread(bundle.finish, about)
            await self.exports.ready(id, size, sha256)
        except TooLarge as error:
            raise UpstreamError(str(error)) from None
        except OSError as error:
            raise UpstreamError(f"The export cannot be written: {error.strerror}.") from error
        finally:
            self.exports.writing.discard(id)
        yield Exported(
            rows=bundle.rows,
            bytes=bundle.bytes,
            link=self.link(grant.tenant, id, expires),
            expires=expires.astimezone(UTC).isoformat(timespec="seconds"),
            export=id,
            sha256=sha256,
            file_bytes=size,
            tables={name: each["rows"] for name, each in bundle.notes["tables"].items() if each["rows"]},
            sessions=len(subject.sessions),
            incomplete=problems,
        )

    def link(self, tenant: str, id: str, expires: datetime) -> str:
        """Where the file is had; a path where nobody has said how this gateway is reached."""
        base = str(self._keeping.settings.public_url or "").rstrip("/")
        return f"{base}/v1/exports/{self.links.make(tenant, id, int(expires.timestamp()))}"

    async def _parts(
        self, bundle: Bundle, subject: Subject, asking: str, problems: list[str]
    ) -> AsyncGenerator[parts.Step, None]:
        connection = await in_thread(self._keeping.database.blocking)
        try:
            source = parts.Source(connection, self._keeping.transcripts.root / subject.tenant, subject, asking)
            for work in (parts.tables(bundle, source), parts.transcripts(bundle, source)):
                async with aclosing(stepped(work)) as steps:
                    async for step in steps:
                        yield step
        finally:
            await in_thread(connection.close)
        async for step in folders(bundle, self._keeping.sessions, subject, self._keeping.settings.files, problems):
            yield step
        store = await self.store(subject.tenant, [])
        if store is None:
            bundle.notes["store"] = "No store is configured, or it cannot be asked."
            return
        async for step in store_parts(bundle, store, subject, problems):
            yield step


@dataclass(frozen=True)
class OfficeOfCall:
    """`servers.gdpr.office.DataProtection` for one call."""

    office: Office
    grant: Grant
    key: str

    def export(self, email: str, customer_id: int) -> ExportParts:
        return self.office.export(self.grant, email, customer_id)

    async def erase(self, email: str, customer_id: int, reason: str) -> ErasureParts:
        problems: list[str] = []
        grant, erasures = self.grant, self.office.erasures
        if await erasures.state(self.key, grant.tenant) is None:
            subject = await self.office.subject(grant.tenant, email, customer_id, problems)
            if problems:
                raise UpstreamError(
                    f"Not all ids of the person can be had: {problems[0]}", hint="Try again when the store answers."
                )
            what = f"{subject.pseudonyms[0]} {self.key}"
            await self.office.audit.note(grant.principal, grant.tenant, "gdpr.erase", what)
            await erasures.enter(self.key, subject, grant.principal, grant.session, reason)
        task = asyncio.create_task(self.office.go_on(self.key))
        while not (await asyncio.wait([task], timeout=_TELL_S))[0]:
            removed = (await self.erasure(self.key))["removed"]
            yield Progress(sum(removed.values()), None, "rows and lines removed", next(reversed(removed), ""))
        if (error := task.exception()) is not None:
            log.error("an erasure was broken off, and is gone on with later", erasure=self.key, error=str(error))
        yield await self.erasure(self.key)

    async def erasure(self, erasure: str) -> Erased:
        found = await self.office.erasures.state(erasure, self.grant.tenant)
        if found is None:
            raise ToolNotFound(f"There is no erasure {erasure[:80]!r}.")
        return _told(erasure, *found)

    async def counts(self, email: str, customer_id: int) -> Mapping[str, int]:
        subject = await self.office.subject(self.grant.tenant, email, customer_id, [])
        return await self.office.erasures.counts(subject)


async def open_office(
    settings: GdprSettings,
    database: Database,
    data_dir: DataDir,
    me: str,
    journal: Journal,
    upkeep: Upkeep,
    transcripts: TranscriptStore,
    contexts: Contexts,
    sessions: Sessions,
    eraser: Eraser,
) -> Office:
    """`me`: this gateway's id. Its keys follow from the secret that all gateways on the database share."""
    row = await database.fetch_one("SELECT secret FROM gateway_secret")
    key = hmac.digest(bytes(row["secret"]) if row else secrets.token_bytes(32), b"omniops gdpr 1", "sha256")
    exports = Exports(database, data_dir.path / "exports", me)
    erasures = Erasures(
        database,
        sessions,
        eraser,
        exports,
        transcripts.root,
        hmac.digest(key, b"names", "sha256"),
        me,
        settings.claim_s,
    )
    keeping = _Keeping(settings, database, journal, upkeep, transcripts, contexts, sessions)
    office = Office(keeping, exports, erasures, Links(key))
    contexts.data_protection = office.for_call
    return office


def _about(id: str, subject: Subject, expires: datetime, problems: list[str]) -> dict[str, Any]:
    return {
        "format": "omniops person export 1",
        "software": f"omniops-kernels {version('omniops-kernels')}",
        "export": id,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "tenant": subject.tenant,
        "subject": {"emails": list(subject.emails), "customer_ids": list(subject.customers)},
        "complete": not problems,
        "incomplete": problems,
        "elsewhere": _ELSEWHERE,
        "not_searched": "The session that asked for this export. Names and addresses without e-mail or customer id.",
    }


def _told(id: str, state: str, report: Report) -> Erased:
    kept = [Kept(what=name, rows=rows, why=TABLES[name].why) for name, rows in report.kept.items()]
    kept += [
        Kept(what=name, rows=rows, why=TABLES[name].why)
        for name, rows in report.removed.items()
        if name in TABLES and TABLES[name].erase == "blank"
    ]
    kept += [Kept(what=name, rows=0, why=why) for name, why in _ELSEWHERE.items()]
    return Erased(
        erasure=id,
        state=state,  # type: ignore[typeddict-item]
        removed=report.removed,
        kept=kept,
        sessions=len(report.sessions),
        waiting_for=report.waiting,
        problems=report.problems,
    )
