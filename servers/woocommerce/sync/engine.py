"""The sync: each window of the store's list is compared, written and checkpointed in one transaction.

So it can be killed at any point: what was not committed is read again, and nothing counts or is applied twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ...context import Progress, Rows, SyncLimits, TenantDatabase
from ...errors import RateLimited, ToolDenied, ToolError, ToolNotFound
from ..client import Parameters, Store
from . import copy
from .copy import Pass, State
from .report import KINDS, Counted, Counts, Failure, Kind, SyncReport, Tally
from .rows import CUSTOMER_FIELDS, ORDER_FIELDS, PRODUCT_FIELDS, VARIATION_FIELDS, Row, Unfit, id_of, row_of
from .windows import Covered, Listing, Place, in_order

#: Rows of variations that are written together.
BATCH = 200
#: Products in a row whose variations cannot be read, after which the store is held to be down.
FAMILIES_IN_A_ROW = 5
#: Taken off the store's clock for what is modified while a list is made, and for seconds that are cut off.
MARGIN = timedelta(minutes=2)

_LISTS: dict[Kind, tuple[str, Parameters]] = {
    "products": ("products", {"status": "any", "_fields": ",".join(PRODUCT_FIELDS)}),
    "customers": ("customers", {"role": "all", "_fields": ",".join(CUSTOMER_FIELDS)}),
    "orders": ("orders", {"status": "any", "_fields": ",".join(ORDER_FIELDS)}),
}


@dataclass(frozen=True)
class Task:
    """What is to be synced from where to where."""

    store: Store
    database: TenantDatabase
    limits: SyncLimits
    in_flight: int
    kinds: Sequence[Kind] = KINDS
    #: True: all is read. False: what was modified. None: all, where that was long ago.
    full: bool | None = None
    #: Delete however much has gone from the store.
    delete_all: bool = False


async def run(task: Task) -> AsyncGenerator[Progress | SyncReport, None]:
    """Progress after each batch, the report last. Closed or killed in between, the next run goes on from there.

    Raises:
        ToolDenied: another sync of this store is under way.
        ToolError: the store cannot be reached or refuses; what was read so far is kept.
    """
    total, resumed = Tally(), False
    async with task.database.exclusive("store_sync") as mine:
        if not mine:
            raise ToolDenied(
                "A sync of this store is under way already.", hint="Wait for it, or interrupt the cell that runs it."
            )
        for kind in [kind for kind in KINDS if kind in task.kinds]:
            one = _Sync(task, kind)
            async with aclosing(one.run()) as steps:
                async for progress in steps:
                    yield progress
            total.merge(one.tally)
            resumed = resumed or one.resumed
    yield SyncReport(
        counts={kind: {n: getattr(c, n) for n in Counts.__struct_fields__} for kind, c in total.counts.items()},
        failures=total.failures,
        notes=total.notes,
        resumed=resumed,
    )


@dataclass(frozen=True)
class _Family:
    """All variations of one product; `complete` where nothing of them is missing."""

    parent: int
    rows: list[Row] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    complete: bool = True


@dataclass(frozen=True)
class _Batch:
    """One window's own rows."""

    covered: Covered
    rows: list[Row]
    failures: list[Failure]
    #: Products that can have no variations.
    childless: list[int]


@dataclass
class _Sync:
    """The sync of one kind."""

    task: Task
    kind: Kind
    resumed: bool = False
    _state: State = field(default_factory=State)
    _pass: Pass = field(default_factory=lambda: Pass(full=True, started=""))
    _failed_in_a_row: int = 0

    @property
    def tally(self) -> Tally:
        return self._pass.tally

    async def run(self) -> AsyncGenerator[Progress, None]:
        await self._begin()
        now = self._pass
        path, params = _LISTS[self.kind]
        if not now.full:
            params = {**params, "modified_after": now.since, "dates_are_gmt": "true"}
        limits = self.task.limits
        place = Place(now.offset, now.frontier, now.hole)
        listing = Listing(
            self.task.store,
            path,
            params,
            limits,
            self.task.in_flight,
            place=place,
            total=now.total,
            doubt=now.doubt,
            began=now.began,
        )
        # one more, as a window among them takes a place and no request
        work = in_order(self._jobs(listing), self._done, self.task.in_flight + 1)
        families: list[_Family] = []
        async with aclosing(work) as results:
            async for result in results:
                now.doubt, now.began = listing.doubt, listing.began
                if isinstance(result, _Family):
                    families.append(result)
                    if sum(len(each.rows) for each in families) < BATCH:
                        continue
                    await self._write_some(families)
                else:
                    await self._write_window(result, families)
                families = []
                yield self._progress()
        await self._end()
        yield self._progress()

    def _progress(self) -> Progress:
        done = self.tally.counts.get(self.kind, Counts()).read
        variations = self.tally.counts.get("variations", Counts()).read
        total = None if self._pass.total is None else max(self._pass.total, done)
        return Progress(done, total, self.kind, f"{variations} variations" if variations else "")

    async def _begin(self) -> None:
        """Go on with the pass that was interrupted, or begin one."""
        task = self.task
        async with task.database.transaction() as rows:
            state = self._state = await copy.load(rows, self.kind)
        limits, old = task.limits, state.current
        due = not state.full_at or _age(state.full_at) >= timedelta(hours=limits.full_pass_hours)
        # wc/v3 does not list customers by when they were modified
        full = self.kind == "customers" or not state.read_until or (due if task.full is None else task.full)
        wanted = old is not None and (task.full is None or old.full == full)
        if old is not None and wanted and _age(old.started) < timedelta(hours=limits.resume_hours):
            self._pass, self.resumed = old, True
            return
        self._pass = Pass(full=full, since="" if full else state.read_until, started=datetime.now(UTC).isoformat())
        state.current = self._pass
        async with task.database.transaction() as rows:
            await copy.forget_gone(rows, self.kind)
            await copy.save(rows, self.kind, state)
        state.version += 1

    async def _jobs(self, listing: Listing) -> AsyncGenerator[_Batch | dict[str, Any], None]:
        """Each window, after the products of it whose variations are to be read."""
        done = set(self._pass.parents)
        async with aclosing(listing.windows()) as windows:
            async for covered in windows:
                read, failures = self._rows(self.kind, covered.items)
                if covered.lost:
                    failures.append(Failure(kind=self.kind, id=0, reason=covered.lost))
                childless: list[int] = []
                if self.kind == "products":
                    for raw in covered.items:
                        if id_of(raw) not in read:
                            continue
                        if not raw.get("variations") and not str(raw["type"]).startswith("variable"):
                            childless.append(raw["id"])
                        elif raw["id"] not in done:
                            yield raw
                yield _Batch(covered, list(read.values()), failures, childless)

    async def _done(self, job: _Batch | dict[str, Any]) -> _Batch | _Family:
        return job if isinstance(job, _Batch) else await self._family(job)

    async def _write_some(self, families: Sequence[_Family]) -> None:
        """Variations of a window that is not finished yet."""
        async with self.task.database.transaction() as rows:
            await self._write_families(rows, families)
            self._pass.parents += [each.parent for each in families]
            await copy.save(rows, self.kind, self._state)
        self._state.version += 1

    async def _write_window(self, batch: _Batch, families: Sequence[_Family]) -> None:
        """A window with the rest of its variations, and that it is finished."""
        now, covered = self._pass, batch.covered
        async with self.task.database.transaction() as rows:
            await self._write_families(rows, families)
            now.tally.count(self.kind, await copy.write(rows, self.kind, batch.rows))
            now.tally.fail(batch.failures)
            if now.full and covered.low is not None:
                seen = [id for raw in covered.items if (id := id_of(raw)) is not None]
                await copy.mark_gone(rows, self.kind, seen, covered.low, covered.high)
            if now.full and batch.childless:
                await copy.mark_gone_of(rows, batch.childless, ())
            now.parents, now.total = [], covered.total
            now.offset, now.frontier, now.hole = covered.next.offset, covered.next.frontier, covered.next.hole
            await copy.save(rows, self.kind, self._state)
        self._state.version += 1

    async def _write_families(self, rows: Rows, families: Sequence[_Family]) -> None:
        if not families:
            return
        now = self._pass
        written = await copy.write(rows, "variations", [row for each in families for row in each.rows])
        failures = [failure for each in families for failure in each.failures]
        if written.read or failures:
            now.tally.count("variations", written)
            now.tally.fail(failures)
        complete = [each for each in families if each.complete]
        if now.full:
            seen = [id for each in complete for id in each.ids]
            await copy.mark_gone_of(rows, [each.parent for each in complete], seen)

    async def _family(self, product: dict[str, Any]) -> _Family:
        """A product's variations. That they cannot be read is no reason to stop."""
        parent, limits = int(product["id"]), self.task.limits
        found = _Family(parent)
        params = {"status": "any", "_fields": ",".join(VARIATION_FIELDS)}
        path = f"products/{parent}/variations"
        listing = Listing(self.task.store, path, params, limits, 1)
        complete = True
        try:
            async with aclosing(listing.windows()) as windows:
                async for covered in windows:
                    raws = [{**raw, "parent_id": parent} if isinstance(raw, dict) else raw for raw in covered.items]
                    read, failures = self._rows("variations", raws)
                    if covered.lost:
                        failures.append(Failure(kind="variations", id=0, reason=f"product {parent}: {covered.lost}"))
                    found.rows.extend(read.values())
                    found.failures.extend(failures)
                    found.ids.extend(id for raw in raws if (id := id_of(raw)) is not None)
                    complete = complete and covered.low is not None
                    if len(found.ids) > limits.variations:
                        raise ToolError(f"it has more than {limits.variations}; no others of it are taken")
        except ToolNotFound:
            return _Family(parent, complete=False)  # deleted since it was listed
        except ToolDenied:
            raise
        except ToolError as error:
            self._failed_in_a_row += 1
            if not _of_one_object(error) or self._failed_in_a_row >= FAMILIES_IN_A_ROW:
                raise
            complete = False
            if not found.ids:  # told once, not for each that was tried
                found.failures.clear()
            reason = f"the variations of product {parent}: {error.message}"
            found.failures.append(Failure(kind="variations", id=0, reason=reason))
        else:
            self._failed_in_a_row = 0
        return _Family(parent, found.rows, found.ids, found.failures, complete and not listing.doubt)

    def _rows(self, kind: Counted, raws: Sequence[Any]) -> tuple[dict[int, Row], list[Failure]]:
        read: dict[int, Row] = {}
        failures: list[Failure] = []
        for raw in raws:
            try:
                row = row_of(kind, raw, self.task.limits.object_bytes)
                read[row.id] = row
            except Unfit as why:
                failures.append(Failure(kind=kind, id=id_of(raw) or 0, reason=str(why)))
        return read, failures

    async def _end(self) -> None:
        """Delete what the store no longer has, where that can be believed, and keep when this was."""
        now, state = self._pass, self._state
        async with self.task.database.transaction() as rows:
            if now.full:
                await self._delete(rows)
            await copy.forget_gone(rows, self.kind)
            if not now.doubt:  # else the next run reads what this one may have missed
                state.full_at = now.started if now.full else state.full_at
                state.read_until = _store_time(now.began, now.started)
            state.current = None
            await copy.save(rows, self.kind, state)
        state.version += 1

    async def _delete(self, rows: Rows) -> None:
        kinds: tuple[Counted, ...] = ("products", "variations") if self.kind == "products" else (self.kind,)
        for kind in kinds:
            gone, stored = await copy.gone_and_stored(rows, kind)
            if self._pass.doubt:
                self.tally.note(f"No {kind} were deleted, as it is not sure that all were listed: {self._pass.doubt}.")
            elif gone and not self._believed(kind, gone, stored):
                self.tally.note(
                    f"{gone} of {stored} {kind} are no longer in the store. That many are not deleted, as the store may"
                    " be broken; run again with delete_all=True where they are really gone."
                )
            elif gone:
                for each, deleted in (await copy.delete_gone(rows, kind)).items():
                    self.tally.count(each, Counts(deleted=deleted))

    def _believed(self, kind: Counted, gone: int, stored: int) -> bool:
        limits = self.task.limits
        if self.task.delete_all:
            return True
        if not self.tally.counts.get(kind, Counts()).read:  # it shows none at all
            return False
        return gone <= max(limits.deleted_always, int(limits.deleted_share * stored))


def _age(moment: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(moment)


def _of_one_object(error: ToolError) -> bool:
    """False where the store is away or wants to be left alone: the next object would fare no better."""
    return not isinstance(error, RateLimited) and (not error.retryable or bool({"status", "slow"} & error.data.keys()))


def _store_time(began: str, started: str) -> str:
    """The store's time at its first answer, as `modified_after` takes it; by our clock where it tells none."""
    try:
        moment = parsedate_to_datetime(began)
    except ValueError:
        moment = datetime.fromisoformat(started)
    return (moment.astimezone(UTC) - MARGIN).strftime("%Y-%m-%dT%H:%M:%S")
