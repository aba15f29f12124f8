"""Webhooks: what the store tells the gateway as it happens. Their deliveries: deliveries.py."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolDenied
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..arguments import Limit, Name, Removed, fields, named, query
from ..client import Object, Store, shop_of, store_of
from ..create import create_named, remove
from ..deliveries import SHORTEST_SECRET, topic_secret
from ..once import alone
from ..shapes import Raw

Topic = Literal[
    "coupon.created",
    "coupon.updated",
    "coupon.deleted",
    "coupon.restored",
    "customer.created",
    "customer.updated",
    "customer.deleted",
    "order.created",
    "order.updated",
    "order.deleted",
    "order.restored",
    "product.created",
    "product.updated",
    "product.deleted",
    "product.restored",
]
#: Customers' data goes there: http for this machine alone.
DeliveryUrl = Annotated[
    str,
    Meta(
        description="https, of your own", pattern=r"^(https://|http://(localhost|127\.0\.0\.1)[:/])\S+$", max_length=500
    ),
]
WebhookId = Annotated[int, Meta(ge=1)]


class Webhook(TypedDict):
    id: int
    name: str
    topic: str
    status: Annotated[str, Meta(description="active, paused, or disabled (by the store, after failed deliveries)")]
    delivery_url: str
    date_created: Annotated[str, Meta(description="UTC")]


@tool(effect="read", roles=STAFF)
async def list_webhooks(
    ctx: ToolContext, *, status: Literal["all", "active", "paused", "disabled"] = "all", limit: Limit = 100
) -> list[Webhook]:
    """The store's webhooks. Their secrets are not shown."""
    return [_view(raw) for raw in await store_of(ctx).first("webhooks", query(status=status), limit)]


@tool(effect="critical", roles=OPERATOR, revert="delete_webhook", undo=undo.remove_made("delete_webhook", "webhook_id"))
async def create_webhook(
    ctx: ToolContext,
    *,
    topic: Topic,
    delivery_url: DeliveryUrl,
    name: Name | None = None,
) -> Webhook:
    """Have the store send each change of a kind, with customers' data, to a URL; once per topic and URL.

    It is signed with a secret of the topic's own, derived from the tenant's; no cell sees it.
    """
    master = shop_of(ctx).webhook_secret
    if len(master) < SHORTEST_SECRET:
        raise ToolDenied(
            f"No webhook secret of at least {SHORTEST_SECRET} characters is configured for this tenant.",
            hint="Set the tenant's shop.webhook_secret.",
        )

    async def find(store: Store) -> Object | None:
        async for raw in store.each("webhooks", {"status": "all"}):
            if raw["topic"] == topic and raw["delivery_url"] == delivery_url:
                return raw
        return None

    secret = topic_secret(master, topic)
    body = {"name": name or topic, "topic": topic, "delivery_url": delivery_url, "secret": secret, "status": "active"}
    return _view(await create_named(ctx, "webhooks", body, find=find, what=f"a webhook of {topic} to that URL"))


@tool(effect="write", roles=OPERATOR, revert="update_webhook with the former values")
async def update_webhook(
    ctx: ToolContext,
    *,
    webhook_id: WebhookId,
    status: Literal["active", "paused", "disabled"] | None = None,
    name: Name | None = None,
) -> Webhook:
    """Pause, resume or rename a webhook. Where it sends to cannot be changed: make another."""
    body = fields(status=status, name=name)
    store, path = store_of(ctx), f"webhooks/{webhook_id}"
    async with alone(store, path):
        # No stamp is possible, nor needed: the same values set twice are set.
        return _view(await store.put(path, body))


@tool(
    effect="critical",
    roles=OPERATOR,
    preview=previews.removal("webhooks/{webhook_id}", "webhook", previews.name_of, "topic", "delivery_url"),
)
async def delete_webhook(ctx: ToolContext, *, webhook_id: WebhookId) -> Removed:
    """Delete a webhook for good: what it kept up to date grows stale. See update_webhook."""
    before = await remove(ctx, f"webhooks/{webhook_id}", force=True, what=f"webhook {webhook_id}")
    return Removed(id=webhook_id, name=named(before), permanently=True)


def _view(raw: Raw) -> Webhook:
    return Webhook(
        id=int(raw["id"]),
        name=str(raw["name"]),
        topic=str(raw["topic"]),
        status=str(raw["status"]),
        delivery_url=str(raw["delivery_url"]),
        date_created=str(raw.get("date_created_gmt") or ""),
    )
