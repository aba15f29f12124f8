"""Making and removing objects, applied once.

A POST cannot be repeated blindly: it would make two. What is made carries this call's stamp in its meta_data. After no
answer, and when a call is taken up again, the store is searched for the stamp: by the object's natural key where it
has one (SKU, coupon code, e-mail), else among the newest. Objects without meta_data (notes, categories, webhooks) are
known by what they say: `create_named` takes nothing that is there already, so that what is found later is this call's.

Only where the store itself refuses a second one of the same key is a POST sent again within one call: a request
that timed out may still be at work in the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..context import ToolContext
from ..errors import ToolError, ToolInputError, ToolNotFound
from .client import PAGE_SIZE, Object, Parameters, Store, store_of
from .once import STAMPS, alone, new_stamp, stamp_of
from .problems import OutcomeUnknown

#: Pages of newest objects that are searched for a stamp; a list with more leaves the call unknown.
SCAN_PAGES = 10

#: The order in which a new object comes first.
NEWEST: Parameters = {"orderby": "date", "order": "desc"}


async def create_stamped(
    ctx: ToolContext, tool: str, path: str, body: Mapping[str, Any], *, among: Parameters, unique: bool
) -> Object:
    """Make an object at `path` once; the object.

    `among`: the query of a list in which it would be. `unique`: the store takes no second one of the same key.

    Raises:
        OutcomeUnknown: it may have been made.
        ToolError: the store refused; nothing was made.
    """
    store = store_of(ctx)
    entry = {"key": STAMPS, "value": [new_stamp(ctx, tool)]}
    stamped = {**body, "meta_data": [*(body.get("meta_data") or ()), entry]}

    async def find() -> Object | None:
        return await _stamped(store, path, among, ctx.idempotency_key)

    async with alone(store, f"{path}#{ctx.idempotency_key}"):
        return await _create(ctx, store, path, stamped, find, unique=unique)


async def create_named(
    ctx: ToolContext,
    path: str,
    body: Mapping[str, Any],
    *,
    find: Callable[[Store], Awaitable[Object | None]],
    what: str,
) -> Object:
    """Make an object without meta_data once; the object. `find` knows it by what it says; `what` names it.

    Raises:
        ToolInputError: there is one like it already.
        OutcomeUnknown, ToolError: as `create_stamped`.
    """
    store = store_of(ctx)
    async with alone(store, f"{path}#{what}"):
        if not ctx.resuming and (there := await find(store)) is not None:
            raise ToolInputError(f"There is {what} already, with id {there['id']}.", data={"id": there["id"]})
        return await _create(ctx, store, path, body, lambda: find(store), unique=False)


async def _create(
    ctx: ToolContext,
    store: Store,
    path: str,
    body: Mapping[str, Any],
    find: Callable[[], Awaitable[Object | None]],
    *,
    unique: bool,
) -> Object:
    if ctx.resuming and (made := await find()) is not None:
        return made
    try:
        return await store.post(path, body)
    except OutcomeUnknown as unanswered:
        try:
            made = await find()
            if made is None and unique:
                made = await _post_unless_made(store, path, body, find)
        except ToolError:
            raise unanswered from None
        if made is None:
            raise
        return made


async def _post_unless_made(
    store: Store, path: str, body: Mapping[str, Any], find: Callable[[], Awaitable[Object | None]]
) -> Object:
    """Once more; the store refuses where the first request came through after all."""
    try:
        return await store.post(path, body)
    except ToolInputError:
        made = await find()
        if made is None:
            raise
        return made


async def _stamped(store: Store, path: str, among: Parameters, key: str) -> Object | None:
    pages = 0
    async for page in store.pages(path, {**among, "per_page": PAGE_SIZE, "_fields": "id,meta_data"}):
        found = next((raw for raw in page if stamp_of(raw, key) is not None), None)
        if found is not None:
            return await store.object(f"{path}/{found['id']}")
        pages += 1
        if pages == SCAN_PAGES and len(page) == PAGE_SIZE:
            raise OutcomeUnknown(
                f"Whether an earlier attempt made the object is not known: it is not among the {pages * PAGE_SIZE:,} "
                f"newest of {path}."
            )
    return None


async def remove(ctx: ToolContext, path: str, *, force: bool, what: str) -> Object:
    """Remove the object once: for good with `force`, else to the trash. The object as it was; `what` names it.

    An object that an earlier attempt has removed for good comes back as {}.

    Raises:
        ToolNotFound: there is none.
        ToolInputError: it is in the trash already.
        OutcomeUnknown, ToolError
    """
    store = store_of(ctx)
    async with alone(store, path):
        before = await _present(store, path)
        if before is None:
            if ctx.resuming and force:
                return {}
            raise ToolNotFound(f"There is no {what}.")
        if not force and before.get("status") == "trash":
            if ctx.resuming:
                return before
            raise ToolInputError(f"The {what} is in the trash already.")
        try:
            await store.delete(path, force=force)
        except OutcomeUnknown as unanswered:
            try:
                now = await _present(store, path)
                if now is not None and (force or now.get("status") != "trash"):
                    await store.delete(path, force=force)
            except ToolError:
                raise unanswered from None
        return before


async def _present(store: Store, path: str) -> Object | None:
    try:
        return await store.object(path)
    except ToolNotFound:
        return None
