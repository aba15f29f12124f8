"""The shop double as an ASGI application: wc/v3 as a store has it, and beside it the double's own controls."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import orjson
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from demo.shop import pages, reports, routes, staff
from demo.shop.auth import Call, Key, KeyNotAllowed, Keys
from demo.shop.responses import API, ShopError, respond
from demo.shop.seed import Seed
from demo.shop.store import Store

_ROUTES = (*routes.ROUTES, *staff.ROUTES, *reports.ROUTES)


def create_app(shop: Seed | Store, keys: Sequence[Key], control_token: str) -> Starlette:
    """A shop with these resources and keys. `control_token` opens what is below `/_double/`."""
    store, known_keys = shop if isinstance(shop, Store) else Store(shop), Keys(keys)

    async def wc(request: HttpRequest) -> Response:
        return _answer(request, await request.body(), store, known_keys)

    async def control(request: HttpRequest) -> Response:
        return _control(request, store, control_token)

    async def page(request: HttpRequest) -> Response:
        return _page(request, store)

    return Starlette(
        routes=[
            *(Route(path, page) for path in ("/", "/robots.txt", "/sitemap.xml", "/product/{slug}/")),
            Route(API + "{path:path}", wc, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            Route("/_double/state", control, methods=["GET"]),
            Route("/_double/written", control, methods=["GET"]),
            Route("/_double/reset", control, methods=["POST"]),
        ]
    )


def _answer(request: HttpRequest, raw: bytes, store: Store, keys: Keys) -> Response:
    base = f"{request.url.scheme}://{request.url.netloc}"
    path = request.path_params["path"].rstrip("/")
    query = tuple(request.query_params.multi_items())
    known, allow = False, ""
    try:
        key = keys.authenticate(
            Call(
                method=request.method,
                url=f"{base}{request.url.path}",
                https=request.url.scheme == "https",
                query=query,
                authorization=request.headers.get("authorization", ""),
            )
        )
        known = key is not None
        route, handler, ids = routes.find(_ROUTES, path, request.method)
        allow = route.allow if known else ""
        answer = handler(routes.Request(store, base, path, query, _json_body(raw), known, ids))
    except ShopError as error:
        known = known or isinstance(error, KeyNotAllowed)
        return respond(error.status, error.body(), base=base, known=known, allow=allow)
    return respond(answer.status, answer.body, base=base, known=known, allow=allow, headers=answer.headers)


def _page(request: HttpRequest, store: Store) -> Response:
    base = f"{request.url.scheme}://{request.url.netloc}"
    match request.url.path:
        case "/":
            return Response(pages.storefront(store), media_type="text/html")
        case "/robots.txt":
            return Response(pages.robots(base), media_type="text/plain")
        case "/sitemap.xml":
            return Response(pages.sitemap(store, base), media_type="application/xml")
    found = pages.product_page(store, base, request.path_params["slug"])
    return Response(found or "There is no such product.", 200 if found else 404, media_type="text/html")


def _json_body(raw: bytes) -> dict[str, object]:
    if not raw:
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        data = {"json_error_code": 4, "json_error_message": "Syntax error"}
        raise ShopError(400, "rest_invalid_json", "Invalid JSON body passed.", data) from None
    return body if isinstance(body, dict) else {}


def _control(request: HttpRequest, store: Store, token: str) -> Response:
    """What no store has: its whole state, and a way back to the start."""
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), token.encode()):
        return Response(status_code=401)
    if request.method == "POST":
        store.reset()
        return Response(status_code=204)
    shown = store.written() if request.url.path.endswith("/written") else store.state()
    return Response(orjson.dumps(shown), media_type="application/json")
