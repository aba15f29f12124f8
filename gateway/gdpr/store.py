"""What the shop itself has of a person: asked of its API while the export is written. What it does not say is noted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson

from gateway.gdpr.bundle import Bundle, Part
from gateway.gdpr.parts import Step
from gateway.gdpr.stepping import in_thread
from gateway.gdpr.subject import Subject
from servers.errors import ToolError, ToolNotFound
from servers.woocommerce.client import Parameters, Store


async def ids(store: Store, subject: Subject, problems: list[str]) -> Subject:
    """With the ids and e-mails under which the store knows the person."""
    emails, customers = list(subject.emails), list(subject.customers)
    try:
        for email in subject.emails:
            async for each in store.each("customers", {"email": email, "role": "all"}):
                if str(each.get("email", "")).lower() == email:
                    customers.append(int(each["id"]))
        for customer in subject.customers:
            found = await _account(store, customer)
            emails.append(str(found.get("email", "")).lower())
            emails.append(str((found.get("billing") or {}).get("email", "")).lower())
    except ToolError as error:
        problems.append(f"store, customers: {error.message}")
    return replace(
        subject,
        emails=tuple(dict.fromkeys(each for each in emails if "@" in each)),
        customers=tuple(dict.fromkeys(customers)),
    )


async def store_parts(bundle: Bundle, store: Store, subject: Subject, problems: list[str]) -> AsyncIterator[Step]:
    """Account, orders with their notes, and reviews. A part that fails is said to be incomplete."""
    orders: list[int] = []

    async def accounts() -> AsyncIterator[Any]:
        for customer in subject.customers:
            if found := await _account(store, customer):
                yield found

    async def ordered() -> AsyncIterator[Any]:
        asked: list[Parameters] = [{"customer": each} for each in subject.customers]
        asked += [{"search": each} for each in subject.emails]
        seen: set[int] = set()
        for params in asked:
            async for order in store.each("orders", params):
                email = str((order.get("billing") or {}).get("email", "")).lower()
                ours = order.get("customer_id") in subject.customers or email in subject.emails
                if ours and order["id"] not in seen:
                    seen.add(order["id"])
                    orders.append(order["id"])
                    yield order

    async def notes() -> AsyncIterator[Any]:
        for order in orders:
            for note in await store.get(f"orders/{order}/notes"):
                yield {"order": order, **note}

    async def reviews() -> AsyncIterator[Any]:
        for email in subject.emails:
            async for review in store.each("products/reviews", {"reviewer_email": email}):
                if str(review.get("reviewer_email", "")).lower() == email:
                    yield review

    bundle.notes["store"] = "The store's own data, as its API told it."
    for name, about, found in (
        ("customers", "The person's account in the store.", accounts()),
        ("orders", "Their orders, as guest too.", ordered()),
        ("notes", "Notes on these orders.", notes()),
        ("reviews", "What they wrote about products.", reviews()),
    ):
        with bundle.part(f"store/{name}.ndjson", about) as part:
            try:
                async for each in found:
                    await in_thread(part.line, orjson.dumps(each))
                    if part.due:
                        yield _at(bundle, part)
            except ToolNotFound as error:
                bundle.notes[f"store/{name}"] = f"The store has no such thing: {error.message}"
            except ToolError as error:
                if name == "reviews" and error.data.get("code") == "rest_no_route":  # a part that a store may lack
                    bundle.notes["store/reviews"] = "The store has no reviews."
                else:
                    problems.append(f"store, {name}: {error.message}")
        yield bundle.rows, bundle.bytes, f"store/{name}"


async def _account(store: Store, customer: int) -> dict[str, Any]:
    """Empty for one that the store does not have: a guest's, or removed. Raises ToolError."""
    try:
        return await store.object(f"customers/{customer}")
    except ToolNotFound:
        return {}


def _at(bundle: Bundle, part: Part) -> Step:
    bundle.check()
    return bundle.rows + part.rows, bundle.bytes + part.size, part.name
