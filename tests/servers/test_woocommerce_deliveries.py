"""Webhook deliveries of a real store, and what an attacker makes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers.woocommerce.deliveries import (
    LARGEST,
    Delivery,
    DeliveryRefused,
    Replays,
    is_ping,
    read_delivery,
    signature,
    topic_secret,
)

FOLDER = Path(__file__).with_name("webhooks")
SOURCE = "http://127.0.0.1:8180"
TOPICS = frozenset(
    f"{resource}.{event}"
    for resource in ("product", "order", "customer")
    for event in ("created", "updated", "deleted")
)
SIGNED = sorted(path.stem for path in FOLDER.glob("*.json") if "ping" not in path.stem)


@dataclass
class Recorded:
    headers: dict[str, str]
    body: bytes
    secret: str


def recorded(name: str) -> Recorded:
    raw = json.loads((FOLDER / f"{name}.json").read_text())
    request = raw["request"]
    return Recorded(dict(request["headers"]), request["body_raw"].encode(), raw["secret"])


def read(delivery: Recorded, replays: Replays | None = None, **changes: Any) -> Delivery:
    options: dict[str, Any] = {"secret": lambda _: delivery.secret, "source": SOURCE, "topics": TOPICS}
    return read_delivery(
        delivery.headers, delivery.body, **(options | changes), replays=Replays() if replays is None else replays
    )


def test_there_are_deliveries() -> None:
    assert len(SIGNED) == 10


@pytest.mark.parametrize("name", SIGNED)
def test_a_recorded_delivery_is_genuine_and_read(name: str) -> None:
    delivery = recorded(name)
    found = read(delivery)
    assert f"{found.resource}.{found.event}" == delivery.headers["X-WC-Webhook-Topic"]
    assert found.payload == json.loads(delivery.body)
    assert found.webhook_id == int(delivery.headers["X-WC-Webhook-ID"])
    gone = name in ("webhook-07-product-created", "webhook-08-product-updated")
    assert found.kind == ("gone" if gone else "change")
    assert (found.object_id is None) == gone


def test_a_deletion_says_which_object() -> None:
    found = read(recorded("b-webhook-07-product-deleted"))
    assert (found.kind, found.topic, found.object_id) == ("change", "product.deleted", 363)


def test_header_names_in_any_case_are_the_same() -> None:
    delivery = recorded("b-webhook-05-product-created")
    delivery.headers = {name.lower(): value for name, value in delivery.headers.items()}
    assert read(delivery).object_id == 363


def test_the_ping_is_no_delivery_and_proves_nothing() -> None:
    ping = recorded("webhook-01-ping")
    assert is_ping(ping.headers, ping.body)
    with pytest.raises(DeliveryRefused, match="not signed"):
        read(ping)


@pytest.mark.parametrize("body", [b"", b"webhook_id=", b"webhook_id=2&x=1", b"webhook_id=\xd9\xa2", b"other=2"])
def test_what_only_looks_like_a_ping_is_none(body: bytes) -> None:
    assert not is_ping(recorded("webhook-01-ping").headers, body)
    assert not is_ping(recorded("b-webhook-05-product-created").headers, b"webhook_id=2")


def tampered(**headers: str | None) -> Callable[[Recorded], None]:
    def change(delivery: Recorded) -> None:
        for name, value in headers.items():
            full = f"X-WC-Webhook-{name}"
            assert full in delivery.headers
            if value is None:
                del delivery.headers[full]
            else:
                delivery.headers[full] = value

    return change


def other_body(delivery: Recorded) -> None:
    delivery.body = delivery.body.replace(b"363", b"364")


def longer_body(delivery: Recorded) -> None:
    delivery.body += b" "


def other_secret(delivery: Recorded) -> None:
    delivery.secret += "x"


def hexadecimal(delivery: Recorded) -> None:
    """The right digest in another form is no signature."""
    delivery.headers["X-WC-Webhook-Signature"] = hashlib.sha256(delivery.body).hexdigest()


ATTACKS: dict[str, tuple[Callable[[Recorded], None], str, int]] = {
    "another object": (other_body, "signature does not fit", 401),
    "a blank more": (longer_body, "signature does not fit", 401),
    "another secret": (other_secret, "signature does not fit", 401),
    "no key needed": (hexadecimal, "signature does not fit", 401),
    "no signature": (tampered(Signature=None), "not signed", 401),
    "an empty signature": (tampered(Signature=""), "not signed", 401),
    "a signature of odd text": (tampered(Signature="schlüssel"), "signature does not fit", 401),
    "an unknown topic": (tampered(Topic="action.wp_login"), "topic is none of ours", 401),
    "no topic": (tampered(Topic=None), "topic is none of ours", 401),
    "another store": (tampered(Source="http://evil.example.com/"), "another store", 401),
    "no store": (tampered(Source=None), "another store", 401),
    "another resource": (tampered(Resource="order"), "not that of its topic", 400),
    "another event": (tampered(Event="deleted"), "not that of its topic", 400),
    "no webhook": (tampered(ID=None), "of which webhook", 400),
    "an odd webhook": (tampered(ID="٣"), "of which webhook", 400),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_changed_is_refused(attack: str) -> None:
    change, told, status = ATTACKS[attack]
    delivery = recorded("b-webhook-05-product-created")
    change(delivery)
    replays = Replays()
    with pytest.raises(DeliveryRefused, match=told) as refusal:
        read(delivery, replays)
    assert refusal.value.status == status
    assert delivery.secret not in str(refusal.value)
    genuine = recorded("b-webhook-05-product-created")
    assert read(genuine, replays).object_id == 363, "a forgery must not use up the genuine one"


def test_a_body_signed_for_one_topic_proves_nothing_under_another() -> None:
    """The topic stands in a header that nobody signs: only a secret per topic binds it."""
    master = "0123456789abcdef0123456789abcdef"
    delivery = recorded("b-webhook-06-product-updated")
    delivery.headers["X-WC-Webhook-Signature"] = signature(topic_secret(master, "product.updated"), delivery.body)

    def secret(topic: str) -> str:
        return topic_secret(master, topic)

    assert read(delivery, secret=secret).topic == "product.updated"
    tampered(Topic="product.deleted", Event="deleted")(delivery)
    with pytest.raises(DeliveryRefused, match="does not fit its body and topic"):
        read(delivery, secret=secret)


def test_a_replayed_delivery_is_refused_whatever_id_it_claims() -> None:
    replays = Replays()
    delivery = recorded("webhook-09-order-created")
    read(delivery, replays)
    tampered(**{"Delivery-ID": "0" * 32})(delivery)
    with pytest.raises(DeliveryRefused, match="taken before") as refusal:
        read(delivery, replays)
    assert refusal.value.status == 409


def test_one_body_for_two_topics_is_two_deliveries() -> None:
    replays = Replays()
    created, updated = recorded("webhook-09-order-created"), recorded("webhook-10-order-updated")
    assert created.body == updated.body
    assert [read(each, replays).event for each in (created, updated)] == ["created", "updated"]


def test_after_a_while_the_same_change_may_come_again() -> None:
    now = [0.0]
    replays = Replays(seconds=600, clock=lambda: now[0])
    delivery = recorded("b-webhook-07-product-deleted")
    read(delivery, replays)
    now[0] = 599
    with pytest.raises(DeliveryRefused):
        read(delivery, replays)
    now[0] = 601
    assert read(delivery, replays).object_id == 363


def test_what_is_remembered_is_bounded() -> None:
    replays = Replays(most=3)
    assert all(replays.take(1, "order.created", str(n)) for n in range(10))
    assert not replays.take(1, "order.created", "9")
    assert replays.take(1, "order.created", "0")


@pytest.mark.parametrize("body", [b"[1]", b"{", b"null", b"webhook_id=2", b"\xff"])
def test_a_signed_body_that_is_no_object_is_refused(body: bytes) -> None:
    delivery = recorded("b-webhook-05-product-created")
    delivery.body = body
    delivery.headers["X-WC-Webhook-Signature"] = signature(delivery.secret, body)
    with pytest.raises(DeliveryRefused, match="no JSON object"):
        read(delivery)


def test_a_huge_body_is_refused_before_it_is_read() -> None:
    delivery = recorded("b-webhook-05-product-created")
    delivery.body = b"x" * (LARGEST + 1)
    with pytest.raises(DeliveryRefused, match="the most is") as refusal:
        read(delivery)
    assert refusal.value.status == 413
