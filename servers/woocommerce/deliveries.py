"""What a store's webhooks send: whether it is genuine, fresh and for us, and what it says.

A store signs the body alone: base64 of HMAC-SHA256 under the webhook's secret. Topic, source and the delivery's id
stand in headers that nobody signs. So each topic has a secret of its own, derived from the tenant's (`topic_secret`):
a body that was signed for one topic proves nothing under another. And a delivery is known again by its signature, not
by its id, which who replays it would change.

Payloads are made when they are delivered, not when the change happens: what was deleted in between arrives as a signed
error. Take a delivery as a hint of what to fetch, and the store's answer as the truth.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

#: Largest body that is looked at, in bytes.
LARGEST = 4 * 1024 * 1024
#: Characters of a tenant's webhook secret, at least.
SHORTEST_SECRET = 32


class DeliveryRefused(Exception):
    """The delivery proves nothing. `status` is the HTTP status to answer with."""

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Delivery:
    """A genuine delivery. `kind`: "change" has the object, or after a deletion its id; "gone": it no longer exists."""

    kind: Literal["change", "gone"]
    topic: str
    webhook_id: int
    delivery_id: str
    payload: Mapping[str, Any]

    @property
    def resource(self) -> str:
        return self.topic.partition(".")[0]

    @property
    def event(self) -> str:
        return self.topic.partition(".")[2]

    @property
    def object_id(self) -> int | None:
        """None where the store no longer says which object it was."""
        found = self.payload.get("id")
        return found if isinstance(found, int) and self.kind == "change" else None


class Replays:
    """Signatures of deliveries that were taken, for a while. In memory: a gateway that starts anew knows none."""

    def __init__(
        self, *, seconds: float = 600.0, most: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._taken: OrderedDict[tuple[int, str, str], float] = OrderedDict()

    def take(self, webhook_id: int, topic: str, signature: str) -> bool:
        """False where it was taken before."""
        now, key = self._clock(), (webhook_id, topic, signature)
        while self._taken and (next(iter(self._taken.values())) < now - self._seconds or len(self._taken) > self._most):
            self._taken.popitem(last=False)
        if key in self._taken:
            return False
        self._taken[key] = now
        return True


def topic_secret(master: str, topic: str) -> str:
    """The secret of a tenant's webhooks of one topic."""
    return hmac.new(master.encode(), topic.encode(), hashlib.sha256).hexdigest()


def signature(secret: str, body: bytes) -> str:
    """As WooCommerce makes X-WC-Webhook-Signature."""
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


def is_ping(headers: Mapping[str, str], body: bytes) -> bool:
    """The unsigned form that a store sends once when a webhook is made. It proves and says nothing: answer 200."""
    head = {name.lower(): value for name, value in headers.items()}
    form = head.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded"
    key, _, id = body.partition(b"=")
    return form and "x-wc-webhook-topic" not in head and key == b"webhook_id" and id.isdigit()


def read_delivery(
    headers: Mapping[str, str],
    body: bytes,
    *,
    secret: Callable[[str], str],
    source: str,
    topics: frozenset[str],
    replays: Replays,
) -> Delivery:
    """The delivery, once it is proven.

    `body`: the raw bytes. `secret`: of a topic (`topic_secret`). `source`: the store's URL. `topics`: expected ones.

    Raises:
        DeliveryRefused: too large, unsigned, signed otherwise, of another store or topic, taken before, or no JSON.
    """
    head = {name.lower(): value for name, value in headers.items()}
    if len(body) > LARGEST:
        raise DeliveryRefused(f"The delivery takes {len(body):,} bytes; the most is {LARGEST:,}.", 413)
    given, topic = head.get("x-wc-webhook-signature", ""), head.get("x-wc-webhook-topic", "")
    if not given or topic not in topics:
        raise DeliveryRefused("The delivery is not signed." if not given else "The delivery's topic is none of ours.")
    if not hmac.compare_digest(signature(secret(topic), body).encode(), given.encode()):
        raise DeliveryRefused("The delivery's signature does not fit its body and topic.")
    if head.get("x-wc-webhook-source", "").rstrip("/") != source.rstrip("/"):
        raise DeliveryRefused("The delivery comes from another store.")
    resource, _, event = topic.partition(".")
    if (head.get("x-wc-webhook-resource", resource), head.get("x-wc-webhook-event", event)) != (resource, event):
        raise DeliveryRefused("The delivery's resource or event is not that of its topic.", 400)
    webhook_id = head.get("x-wc-webhook-id", "")
    if not (webhook_id.isascii() and webhook_id.isdigit() and len(webhook_id) < 19):
        raise DeliveryRefused("The delivery does not say of which webhook it is.", 400)
    payload = _payload(body)
    if not replays.take(int(webhook_id), topic, given):
        raise DeliveryRefused("The delivery was taken before.", 409)
    gone = isinstance(payload.get("code"), str) and "data" in payload
    return Delivery(
        kind="gone" if gone else "change",
        topic=topic,
        webhook_id=int(webhook_id),
        delivery_id=head.get("x-wc-webhook-delivery-id", "")[:64],
        payload=payload,
    )


def _payload(body: bytes) -> Mapping[str, Any]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        raise DeliveryRefused("The delivery's body is no JSON object.", 400)
    return payload
