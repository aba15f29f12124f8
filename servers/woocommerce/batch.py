"""A store's batch endpoints: at most 100 items a request, answered 200 whatever became of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from ..context import ToolContext
from ..errors import ToolError
from .client import Object, Store
from .once import STAMPS, new_stamp, stamp_of
from .problems import OutcomeUnknown, printable

#: Items that a store takes in one request; more are refused with 413.
BATCH_SIZE = 100


class BatchFailure(TypedDict):
    action: Annotated[str, Meta(description="create, update or delete")]
    position: Annotated[int, Meta(description="in the list that was given, from 0")]
    id: Annotated[int, Meta(description="0: it was to be created")]
    code: str
    message: str


@dataclass(frozen=True)
class New:
    """An object to be made, known by its SKU."""

    sku: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """Values to be set; set twice they are the same."""

    id: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One line of a batch."""

    action: str
    position: int
    body: Mapping[str, Any]


async def send(
    ctx: ToolContext, store: Store, tool: str, path: str, new: Sequence[New], changes: Sequence[Change]
) -> tuple[list[int], list[int], list[BatchFailure]]:
    """Apply all once, in requests of 100: ids made, ids changed, what failed.

    What an earlier attempt has made is known by its stamp and not sent again.

    Raises:
        OutcomeUnknown: a request had no answer, or one failed after others were applied; the same call again does the
            rest.
        ToolError: the store refused the first request; nothing is changed.
    """
    made = await _made(store, path, ctx, [item.sku for item in new]) if ctx.resuming and new else {}
    stamp = {"key": STAMPS, "value": [new_stamp(ctx, tool)]}
    items = [
        Item("create", position, {**item.body, "meta_data": [stamp]})
        for position, item in enumerate(new)
        if item.sku not in made
    ]
    items += [Item("update", position, change.body) for position, change in enumerate(changes)]
    ids = {position: made[item.sku] for position, item in enumerate(new) if item.sku in made}
    updated: list[int] = []
    failed: list[BatchFailure] = []
    for sent, chunk in enumerate(_chunks(items)):
        try:
            answer = await store.post(f"{path}/batch", _body(chunk))
        except ToolError as error:
            if sent and not isinstance(error, OutcomeUnknown):
                message = f"{sent * BATCH_SIZE} items were applied, then the store failed: {error.message}"
                raise OutcomeUnknown(message) from None
            raise
        for item, raw in outcomes(chunk, answer):
            if "error" in raw:
                failed.append(_failure(item, raw))
            elif item.action == "create":
                ids[item.position] = int(raw["id"])
            else:
                updated.append(int(raw["id"]))
    return [ids[position] for position in sorted(ids)], updated, failed


def outcomes(items: Sequence[Item], answer: object) -> list[tuple[Item, Object]]:
    """Each item with what the store says of it, by place: a failed creation has no id. An empty batch is []."""
    by_action: Mapping[str, list[Object]] = answer if isinstance(answer, dict) else {}
    return [
        pair
        for action in ("create", "update", "delete")
        for pair in zip([item for item in items if item.action == action], by_action.get(action) or (), strict=True)
    ]


async def _made(store: Store, path: str, ctx: ToolContext, skus: Sequence[str]) -> dict[str, int]:
    """Ids by SKU of what an earlier attempt at this call has made."""
    found: dict[str, int] = {}
    for some in _chunks(skus):
        params = {"sku": ",".join(some), "status": "any", "_fields": "id,sku,meta_data"}
        async for raw in store.each(path, params):
            if stamp_of(raw, ctx.idempotency_key) is not None:
                found[str(raw["sku"])] = int(raw["id"])
    return found


def _body(items: Iterable[Item]) -> dict[str, list[Mapping[str, Any]]]:
    body: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        body.setdefault(item.action, []).append(item.body)
    return body


def _failure(item: Item, raw: Object) -> BatchFailure:
    error = raw["error"] if isinstance(raw["error"], dict) else {}
    return BatchFailure(
        action=item.action,
        position=item.position,
        id=int(raw.get("id") or 0),
        code=printable(error.get("code", "")),
        message=printable(error.get("message", "")),
    )


def _chunks(items: Sequence[Any]) -> list[list[Any]]:
    left = iter(items)
    return list(iter(lambda: list(itertools.islice(left, BATCH_SIZE)), []))
