"""wc/v3's answers: headers, error bodies, paging, `_fields`, links, as recorded from a real store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.responses import Response

from demo.shop.seed import Resource

API = "/wp-json/wc/v3"

_ALWAYS = {
    "x-robots-tag": "noindex",
    "x-content-type-options": "nosniff",
    "access-control-expose-headers": "X-WP-Total, X-WP-TotalPages, Link",
    "access-control-allow-headers": "Authorization, X-WP-Nonce, Content-Disposition, Content-MD5, Content-Type",
}
#: What WordPress adds for whoever has authenticated.
_NO_CACHE = {
    "expires": "Wed, 11 Jan 1984 05:00:00 GMT",
    "cache-control": "no-cache, must-revalidate, max-age=0, no-store, private",
}


class ShopError(Exception):
    """An error answer. `data` is what stands beside `status` in the body's `data`, or replaces it if not a mapping."""

    def __init__(self, status: int, code: str, message: str, data: Mapping[str, Any] | int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> dict[str, Any]:
        data = self.data if isinstance(self.data, int) else {"status": self.status, **(self.data or {})}
        return {"code": self.code, "message": self.message, "data": data}


def no_route() -> ShopError:
    return ShopError(404, "rest_no_route", "No route was found matching the URL and request method.")


def respond(
    status: int, body: object, *, base: str, known: bool, allow: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """One answer. `base` is the shop's address; `known` says whether the caller has authenticated."""
    every = {"content-type": "application/json; charset=UTF-8", **_ALWAYS}
    every["link"] = f'<{base}/wp-json/>; rel="https://api.w.org/"'
    every |= _NO_CACHE if known else {"vary": "Origin"}
    if allow:
        every["allow"] = allow
    return Response(orjson.dumps(body), status, headers=every | dict(headers or {}))


def page_headers(total: int, page: int, per_page: int, url: str, query: Sequence[tuple[str, str]]) -> dict[str, str]:
    """X-WP-Total, X-WP-TotalPages and, where there is more than one page, Link."""
    pages = -(-total // per_page)
    links = []
    if page > 1 and pages:
        links.append(_link(url, query, min(page - 1, pages), "prev"))
    if page < pages:
        links.append(_link(url, query, page + 1, "next"))
    headers = {"x-wp-total": str(total), "x-wp-totalpages": str(pages)}
    return headers | ({"link": ", ".join(links)} if links else {})


def _link(url: str, query: Sequence[tuple[str, str]], page: int, rel: str) -> str:
    """WordPress repeats the query, keys and all, with booleans as 1; the page keeps its place or goes last."""
    pairs = {key: "1" if value == "true" else value for key, value in query} | {"page": str(page)}
    return f'<{url}?{urlencode(pairs)}>; rel="{rel}"'


def linked(resource: Resource, base: str, collection: str, up: str = "") -> Resource:
    """The resource with the links that depend on the address it was asked at. `collection` such as "/orders"."""
    home = f"{base}{API}{collection}"
    allow = ["GET", "DELETE"] if collection.endswith(("/notes", "/refunds")) else _ALL
    links: dict[str, Any] = {
        "self": [{"href": f"{home}/{resource['id']}", "targetHints": {"allow": allow}}],
        "collection": [{"href": home}],
    }
    if up:
        links["up"] = [{"href": f"{base}{API}{up}"}]
    if collection == "/orders":
        links["email_templates"] = [
            {"embeddable": True, "href": f"{home}/{resource['id']}/actions/email_templates"},
        ]
        links["customer"] = [{"href": f"{base}{API}/customers/{resource['customer_id']}"}]
        key = resource["order_key"]
        pay = f"{base}/checkout/order-pay/{resource['id']}/?pay_for_order=true&key={key}"
        return resource | {"payment_url": pay, "_links": links}
    if "permalink" in resource:
        return resource | {"permalink": _permalink(resource, base), "_links": links}
    return resource | {"_links": links}


_ALL = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def _permalink(resource: Resource, base: str) -> str:
    if resource["type"] != "variation":
        return f"{base}/product/{resource['slug']}/"
    chosen = {f"attribute_{each['slug']}": each["option"] for each in resource["attributes"]}
    return f"{base}/?post_type=product&p={resource['parent_id']}&{urlencode(chosen)}"


def only_fields(body: Any, fields: str) -> Any:
    """What `_fields` leaves of an object or a list of them; "billing.city" reaches inside."""
    if not fields:
        return body
    paths = [path.strip().split(".") for path in fields.split(",") if path.strip()]
    if isinstance(body, list):
        return [_pick(each, paths) for each in body]
    return _pick(body, paths)


def _pick(resource: Mapping[str, Any], paths: Sequence[Sequence[str]]) -> dict[str, Any]:
    picked: dict[str, Any] = {}
    for key, value in resource.items():
        below = [path[1:] for path in paths if path[0] == key]
        if not below:
            continue
        whole = any(not rest for rest in below) or not isinstance(value, Mapping)
        picked[key] = value if whole else _pick(value, below)
    return picked
