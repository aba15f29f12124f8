"""Coupons."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..arguments import Amount, Limit, Moment, Removed, Search, fields, moment, named, query
from ..client import Object, store_of
from ..create import create_stamped, remove
from ..once import Change, change_object
from ..shapes import Raw

Code = Annotated[
    str,
    Meta(description="what customers enter; case does not count", min_length=1, max_length=100, pattern=r"^[^\s<>]+$"),
]
CouponId = Annotated[int, Meta(ge=1)]
DiscountType = Literal["percent", "fixed_cart", "fixed_product"]
Uses = Annotated[int, Meta(description="how often it may be used", ge=1, le=1_000_000)]


class Coupon(TypedDict):
    id: int
    code: str
    status: str
    discount_type: str
    amount: Annotated[str, Meta(description="percent, or money")]
    description: str
    date_expires: Annotated[str, Meta(description="UTC; '' for never")]
    usage_count: int
    usage_limit: Annotated[int | None, Meta(description="None: without end")]
    usage_limit_per_user: int | None
    minimum_amount: Annotated[str, Meta(description="of the cart; '0.00' for any")]
    individual_use: bool
    free_shipping: bool


@tool(effect="read", roles=STAFF)
async def list_coupons(
    ctx: ToolContext,
    *,
    code: Annotated[str, Meta(description="exact; '' for all", max_length=100)] = "",
    search: Search = "",
    limit: Limit = 100,
) -> list[Coupon]:
    """Coupons, newest first."""
    rows = await store_of(ctx).first("coupons", query(code=code, search=search), limit)
    return [_view(raw) for raw in rows]


@tool(effect="read", roles=STAFF)
async def get_coupon(ctx: ToolContext, *, coupon_id: CouponId) -> Coupon:
    """One coupon by its id; by code: list_coupons."""
    return _view(await store_of(ctx).object(f"coupons/{coupon_id}"))


@tool(effect="write", roles=OPERATOR, revert="trash_coupon", undo=undo.remove_made("trash_coupon", "coupon_id"))
async def create_coupon(
    ctx: ToolContext,
    *,
    code: Code,
    discount_type: DiscountType,
    amount: Amount,
    usage_limit: Uses,
    description: Annotated[str, Meta(max_length=500)] = "",
    date_expires: Moment = "",
    usage_limit_per_user: Uses | None = None,
    minimum_amount: Amount | None = None,
    individual_use: bool = True,
    free_shipping: bool = False,
) -> Coupon:
    """Make a coupon; its uses are always limited. The store takes no code twice."""
    _require_percent(discount_type, amount)
    body = fields(
        code=code,
        discount_type=discount_type,
        amount=amount,
        usage_limit=usage_limit,
        description=description,
        date_expires_gmt=moment("date_expires", date_expires) if date_expires else None,
        usage_limit_per_user=usage_limit_per_user,
        minimum_amount=minimum_amount,
        individual_use=individual_use,
        free_shipping=free_shipping,
    )
    made = await create_stamped(ctx, "create_coupon", "coupons", body, among={"code": code}, unique=True)
    return _view(made)


@tool(effect="write", roles=OPERATOR, revert="update_coupon with the former values")
async def update_coupon(
    ctx: ToolContext,
    *,
    coupon_id: CouponId,
    amount: Amount | None = None,
    usage_limit: Uses | None = None,
    description: Annotated[str, Meta(max_length=500)] | None = None,
    date_expires: Moment | None = None,
    minimum_amount: Amount | None = None,
) -> Coupon:
    """Change a coupon; what is left out stays. A `date_expires` of now ends it."""
    expires = moment("date_expires", date_expires) if date_expires else date_expires
    body = fields(
        amount=amount,
        usage_limit=usage_limit,
        description=description,
        date_expires_gmt=expires,
        minimum_amount=minimum_amount,
    )

    def plan(raw: Object) -> Change:
        if amount is not None:
            _require_percent(str(raw["discount_type"]), amount)
        return Change(fields=body)

    return _view(await change_object(ctx, "update_coupon", f"coupons/{coupon_id}", plan))


@tool(
    effect="write",
    roles=OPERATOR,
    preview=previews.removal("coupons/{coupon_id}", "coupon", previews.name_of, "amount", "usage_count", gone="trash"),
)
async def trash_coupon(ctx: ToolContext, *, coupon_id: CouponId) -> Removed:
    """Move a coupon to the trash: nobody can use it any more. The store's admin page can restore it."""
    before = await remove(ctx, f"coupons/{coupon_id}", force=False, what=f"coupon {coupon_id}")
    return Removed(id=coupon_id, name=named(before, "code"), permanently=False)


def _require_percent(discount_type: str, amount: str) -> None:
    """
    Raises:
        ToolInputError: more than everything is taken off.
    """
    if discount_type == "percent" and Decimal(amount) > 100:
        raise ToolInputError(f"amount is {amount}, yet a percent coupon takes off 100 at most.")


def _view(raw: Raw) -> Coupon:
    return Coupon(
        id=int(raw["id"]),
        code=str(raw["code"]),
        status=str(raw.get("status") or ""),
        discount_type=str(raw["discount_type"]),
        amount=str(raw["amount"]),
        description=str(raw.get("description") or ""),
        date_expires=str(raw.get("date_expires_gmt") or ""),
        usage_count=int(raw.get("usage_count") or 0),
        usage_limit=raw.get("usage_limit"),
        usage_limit_per_user=raw.get("usage_limit_per_user"),
        minimum_amount=str(raw.get("minimum_amount") or "0.00"),
        individual_use=bool(raw.get("individual_use")),
        free_shipping=bool(raw.get("free_shipping")),
    )
