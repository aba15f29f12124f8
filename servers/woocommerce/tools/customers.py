"""Customers, for the shop's staff. A conversation's own customer: verify_customer, get_customer."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..access import require_staff
from ..arguments import Descending, Limit, Removed, Search, fields, named, query
from ..client import store_of
from ..create import create_stamped, remove
from ..once import Change, change_object
from ..shapes import Raw
from .orders import Contact, contact

Email = Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=254)]
PersonName = Annotated[str, Meta(max_length=100)]
AccountId = Annotated[int, Meta(description="the customer's id", ge=1)]


class CustomerRow(TypedDict):
    id: int
    email: str
    username: str
    first_name: str
    last_name: str
    role: str
    is_paying_customer: bool
    country: Annotated[str, Meta(description="of billing; '' where unknown")]
    date_created: Annotated[str, Meta(description="UTC")]


class CustomerRecord(CustomerRow):
    billing: Contact
    shipping: Contact


@tool(effect="read", roles=STAFF)
async def find_customers(
    ctx: ToolContext,
    *,
    email: Annotated[str, Meta(description="exact; '' for all", max_length=254)] = "",
    search: Search = "",
    role: Annotated[str, Meta(description="'all', or such as 'customer'", pattern="^[a-z_-]+$")] = "customer",
    orderby: Literal["id", "name", "registered_date"] = "registered_date",
    descending: Descending = True,
    limit: Limit = 100,
) -> list[CustomerRow]:
    """Customers with an account, by e-mail or words of their name. Guests have none: find_orders."""
    require_staff(ctx)
    params = query(
        email=email.strip(), search=search, role=role, orderby=orderby, order="desc" if descending else "asc"
    )
    return [_row(raw) for raw in await store_of(ctx).first("customers", params, limit)]


@tool(effect="read", roles=STAFF)
async def get_account(ctx: ToolContext, *, customer_id: AccountId) -> CustomerRecord:
    """One customer's account with its contacts."""
    require_staff(ctx)
    return _record(await store_of(ctx).object(f"customers/{customer_id}"))


@tool(effect="write", roles=OPERATOR, revert="delete_customer", undo=undo.remove_made("delete_customer", "customer_id"))
async def create_customer(
    ctx: ToolContext,
    *,
    email: Email,
    first_name: PersonName = "",
    last_name: PersonName = "",
    billing: Contact | None = None,
    shipping: Contact | None = None,
) -> CustomerRecord:
    """Make a customer's account. The store takes no e-mail twice, makes the password and sends the welcome."""
    to = None if shipping is None else {k: v for k, v in shipping.items() if k != "email"}
    body = fields(email=email, first_name=first_name, last_name=last_name, billing=billing, shipping=to)
    among = {"email": email, "role": "all"}
    return _record(await create_stamped(ctx, "create_customer", "customers", body, among=among, unique=True))


@tool(effect="write", roles=OPERATOR, revert="update_customer with the former values")
async def update_customer(
    ctx: ToolContext,
    *,
    customer_id: AccountId,
    email: Email | None = None,
    first_name: PersonName | None = None,
    last_name: PersonName | None = None,
    billing: Contact | None = None,
    shipping: Contact | None = None,
) -> CustomerRecord:
    """Correct a customer's account; what is left out stays. Orders that were placed keep their contacts."""
    to = None if shipping is None else {k: v for k, v in shipping.items() if k != "email"}
    body = fields(email=email, first_name=first_name, last_name=last_name, billing=billing, shipping=to)
    path = f"customers/{customer_id}"
    return _record(await change_object(ctx, "update_customer", path, lambda _: Change(fields=body)))


@tool(effect="critical", roles=OPERATOR, preview=previews.account_deletion)
async def delete_customer(ctx: ToolContext, *, customer_id: AccountId) -> Removed:
    """Delete a customer's account for good; their orders stay, as a guest's. The store has no trash for accounts."""
    before = await remove(ctx, f"customers/{customer_id}", force=True, what=f"customer {customer_id}")
    return Removed(id=customer_id, name=named(before, "email"), permanently=True)


def _row(raw: Raw) -> CustomerRow:
    return CustomerRow(
        id=int(raw["id"]),
        email=str(raw["email"]),
        username=str(raw.get("username") or ""),
        first_name=str(raw.get("first_name") or ""),
        last_name=str(raw.get("last_name") or ""),
        role=str(raw.get("role") or ""),
        is_paying_customer=bool(raw.get("is_paying_customer")),
        country=str((raw.get("billing") or {}).get("country") or ""),
        date_created=str(raw.get("date_created_gmt") or ""),
    )


def _record(raw: Raw) -> CustomerRecord:
    return CustomerRecord(
        **_row(raw), billing=contact(raw.get("billing") or {}), shipping=contact(raw.get("shipping") or {})
    )
