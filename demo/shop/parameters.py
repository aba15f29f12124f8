"""Query and body parameters: what each route takes, and the errors that WordPress gives for what does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from demo.shop.responses import ShopError


@dataclass(frozen=True)
class Parameter:
    kind: Literal["string", "integer", "enum", "date", "ids", "boolean", "list"] = "string"
    default: Any = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wrong:
    code: str
    message: str


_ORDER = Parameter("enum", "desc", choices=("asc", "desc"))

_LIST: dict[str, Parameter] = {
    "page": Parameter("integer", 1, minimum=1),
    "per_page": Parameter("integer", 10, minimum=1, maximum=100),
    "search": Parameter(),
    "include": Parameter("ids"),
    "exclude": Parameter("ids"),
    "offset": Parameter("integer", minimum=0),
    "order": _ORDER,
    "_fields": Parameter(),
}
_DATED: dict[str, Parameter] = {
    "after": Parameter("date"),
    "before": Parameter("date"),
    "modified_after": Parameter("date"),
    "modified_before": Parameter("date"),
    "dates_are_gmt": Parameter("boolean", False),
}

#: In the order, and with the repetitions, of a recorded store's message.
_PRODUCT_ORDERBY = (
    *("date", "id", "include", "title", "slug", "modified", "popularity", "rating", "post__in", "price", "sales"),
    *("menu_order", "random", "popularity", "rating", "menu_order", "price", "popularity", "rating"),
)
STOCK = ("instock", "outofstock", "onbackorder")
ORDER_STATUS = (
    "auto-draft",
    "pending",
    "processing",
    "on-hold",
    "completed",
    "cancelled",
    "refunded",
    "failed",
    "checkout-draft",
)
#: Registered by the plugin that this shop has for returns.
PLUGIN_STATUS = ("return-requested", "exchange-requested")

PRODUCTS: dict[str, Parameter] = {
    **_LIST,
    **_DATED,
    "orderby": Parameter("enum", "date", choices=_PRODUCT_ORDERBY),
    "sku": Parameter(),
    "slug": Parameter(),
    "status": Parameter("enum", "any", choices=("any", "future", "trash", "draft", "pending", "private", "publish")),
    "type": Parameter("enum", choices=("simple", "grouped", "external", "variable")),
    "category": Parameter(),
    "stock_status": Parameter("enum", choices=STOCK),
    "min_price": Parameter(),
    "max_price": Parameter(),
}
VARIATIONS: dict[str, Parameter] = {
    **_LIST,
    **_DATED,
    "orderby": Parameter("enum", "date", choices=("date", "id", "include", "title", "slug", "modified", "menu_order")),
    "sku": Parameter(),
    "stock_status": Parameter("enum", choices=STOCK),
}
CATEGORIES: dict[str, Parameter] = {
    **_LIST,
    "order": Parameter("enum", "asc", choices=("asc", "desc")),
    "orderby": Parameter(
        "enum",
        "name",
        choices=("id", "include", "name", "slug", "term_group", "description", "count"),
    ),
    "slug": Parameter(),
    "parent": Parameter("integer"),
}
CUSTOMERS: dict[str, Parameter] = {
    **_LIST,
    "order": Parameter("enum", "asc", choices=("asc", "desc")),
    "orderby": Parameter("enum", "name", choices=("id", "include", "name", "registered_date")),
    "email": Parameter(),
    "role": Parameter(default="customer"),
}
ORDERS: dict[str, Parameter] = {
    **_LIST,
    **_DATED,
    "orderby": Parameter("enum", "date", choices=("date", "id", "include", "title", "slug", "modified")),
    "status": Parameter("list", ("any",), choices=("any", "trash", *ORDER_STATUS, *PLUGIN_STATUS)),
    "customer": Parameter("integer"),
    "product": Parameter("integer"),
}
ONE: dict[str, Parameter] = {"_fields": Parameter()}

ORDER_BODY: dict[str, Any] = {
    "status": (*ORDER_STATUS, *PLUGIN_STATUS),
    "billing": dict,
    "shipping": dict,
    "meta_data": list,
    "line_items": list,
    "payment_method": str,
    "payment_method_title": str,
    "customer_note": str,
    "transaction_id": str,
}
CUSTOMER_BODY: dict[str, Any] = {
    "email": "email",
    "first_name": str,
    "last_name": str,
    "billing": dict,
    "shipping": dict,
    "meta_data": list,
}
NOTE_BODY: dict[str, Any] = {"note": str, "customer_note": bool}
REFUND_BODY: dict[str, Any] = {"amount": "amount", "reason": str, "api_refund": bool, "meta_data": list}

PRODUCT_BODY: dict[str, Any] = {
    "name": str,
    "type": ("simple", "grouped", "external", "variable"),
    "status": ("draft", "pending", "private", "publish", "future", "auto-draft", "trash"),
    "sku": str,
    "regular_price": str,
    "sale_price": str,
    "description": str,
    "short_description": str,
    "manage_stock": bool,
    "stock_quantity": int,
    "stock_status": STOCK,
    "categories": list,
    "attributes": list,
    "meta_data": list,
}
VARIATION_BODY: dict[str, Any] = {name: rule for name, rule in PRODUCT_BODY.items() if name not in ("type", "name")}
CATEGORY_BODY: dict[str, Any] = {"name": str, "slug": str, "parent": int, "description": str}
COUPON_BODY: dict[str, Any] = {
    "code": str,
    "amount": str,
    "discount_type": ("percent", "fixed_cart", "fixed_product"),
    "description": str,
    "date_expires_gmt": str,
    "usage_limit": int,
    "usage_limit_per_user": int,
    "minimum_amount": str,
    "individual_use": bool,
    "free_shipping": bool,
    "meta_data": list,
}
WEBHOOK_BODY: dict[str, Any] = {
    "name": str,
    "status": ("active", "paused", "disabled"),
    "topic": str,
    "delivery_url": str,
    "secret": str,
}
NEW_ORDER_BODY: dict[str, Any] = {
    **ORDER_BODY,
    "customer_id": int,
    "set_paid": bool,
    "shipping_lines": list,
    "coupon_lines": list,
}
NEW_CUSTOMER_BODY: dict[str, Any] = {**CUSTOMER_BODY, "username": str, "password": str}
DELETE: dict[str, Parameter] = {"force": Parameter("boolean", False)}
COUPONS: dict[str, Parameter] = {
    **_LIST,
    **_DATED,
    "orderby": Parameter("enum", "date", choices=("date", "id", "include", "title", "slug", "modified")),
    "code": Parameter(),
}
WEBHOOKS: dict[str, Parameter] = {
    **_LIST,
    "orderby": Parameter("enum", "date", choices=("date", "id", "title")),
    "status": Parameter("enum", "all", choices=("all", "active", "paused", "disabled")),
}
REPORT: dict[str, Parameter] = {
    "period": Parameter("enum", choices=("week", "month", "last_month", "year")),
    "date_min": Parameter(),
    "date_max": Parameter(),
}

_TYPE_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}


def read_query(query: Sequence[tuple[str, str]], accepted: Mapping[str, Parameter]) -> dict[str, Any]:
    """The accepted parameters with their defaults; others are ignored. Raises ShopError naming all that are wrong."""
    values: dict[str, Any] = {name: parameter.default for name, parameter in accepted.items()}
    wrong: dict[str, _Wrong] = {}
    for name, text in query:
        base = name.removesuffix("[]")
        if base not in accepted:
            continue
        read = _read(base, text, accepted[base])
        if isinstance(read, _Wrong):
            wrong[base] = read
        elif name.endswith("[]") and isinstance(values[base], tuple) and values[base] != accepted[base].default:
            values[base] = (*values[base], *read)
        else:
            values[base] = read
    _raise(wrong)
    return values


def read_body(body: Mapping[str, Any], accepted: Mapping[str, Any]) -> dict[str, Any]:
    """The accepted fields of a JSON body; others are ignored. Raises ShopError naming all that are wrong."""
    wrong = {
        name: found
        for name, rule in accepted.items()
        if name in body and (found := _check_field(name, body[name], rule)) is not None
    }
    _raise(wrong)
    return {name: body[name] for name in accepted if name in body}


def _raise(wrong: Mapping[str, _Wrong]) -> None:
    if not wrong:
        return
    raise ShopError(
        400,
        "rest_invalid_param",
        f"Invalid parameter(s): {', '.join(wrong)}",
        {
            "params": {name: each.message for name, each in wrong.items()},
            "details": {
                name: {"code": each.code, "message": each.message, "data": None} for name, each in wrong.items()
            },
        },
    )


def _read(name: str, text: str, parameter: Parameter) -> Any:
    match parameter.kind:
        case "integer":
            return _integer(name, text, parameter)
        case "enum":
            return text if text in parameter.choices else _not_one_of(name, parameter.choices)
        case "list":
            return _list(name, text, parameter)
        case "date":
            return _date(text)
        case "ids":
            return tuple(int(each) for each in re.findall(r"\d+", text))
        case "boolean":
            return text.lower() in ("true", "1")
        case _:
            return text


def _integer(name: str, text: str, parameter: Parameter) -> int | _Wrong:
    if not re.fullmatch(r"-?\d+", text):
        return _Wrong("rest_invalid_type", f"{name} is not of type integer.")
    value, low, high = int(text), parameter.minimum, parameter.maximum
    if low is not None and high is not None and not low <= value <= high:
        return _Wrong("rest_out_of_bounds", f"{name} must be between {low} (inclusive) and {high} (inclusive)")
    if low is not None and value < low:
        return _Wrong("rest_out_of_bounds", f"{name} must be greater than or equal to {low}")
    return value


def _list(name: str, text: str, parameter: Parameter) -> tuple[str, ...] | _Wrong:
    values = tuple(each.strip() for each in text.split(",") if each.strip())
    for position, value in enumerate(values):
        if value not in parameter.choices:
            return _not_one_of(f"{name}[{position}]", parameter.choices)
    return values


def _date(text: str) -> str | _Wrong:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return _Wrong("rest_invalid_date", "Invalid date.")


def _check_field(name: str, value: object, rule: Any) -> _Wrong | None:
    if isinstance(rule, tuple):
        return None if value in rule else _not_one_of(name, rule)
    if rule == "email":
        fits = isinstance(value, str) and re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value) is not None
        return None if fits else _Wrong("rest_invalid_email", "Invalid email address.")
    if rule == "amount":
        fits = isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value) is not None
        return None if fits else _Wrong("rest_invalid_type", f"{name} is not of type string.")
    return (
        None if isinstance(value, rule) else _Wrong("rest_invalid_type", f"{name} is not of type {_TYPE_NAMES[rule]}.")
    )


def _not_one_of(name: str, choices: Sequence[str]) -> _Wrong:
    return _Wrong("rest_not_in_enum", f"{name} is not one of {', '.join(choices[:-1])}, and {choices[-1]}.")
