"""How a request proves its keys: Basic over https, OAuth 1.0a (one-legged, HMAC-SHA256) over http.

Stores refuse Basic over plain http, for it would send the secret in the clear; OAuth sends a signature instead.
https://developer.woocommerce.com/docs/apis/rest-api/authentication/
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Literal

import httpx
from oauthlib.oauth1 import SIGNATURE_HMAC_SHA256, SIGNATURE_TYPE_QUERY, Client

from ..context import Shop
from ..errors import ToolError

_Method = Literal["GET", "POST", "PUT", "DELETE"]
_METHODS: dict[str, _Method] = {"GET": "GET", "POST": "POST", "PUT": "PUT", "DELETE": "DELETE"}


class OAuth(httpx.Auth):
    """Signs each attempt anew: a store takes no nonce twice."""

    def __init__(self, shop: Shop) -> None:
        self._client = Client(
            shop.consumer_key,
            client_secret=shop.consumer_secret,
            signature_method=SIGNATURE_HMAC_SHA256,
            signature_type=SIGNATURE_TYPE_QUERY,
        )

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        signed, _, _ = self._client.sign(str(request.url), http_method=_METHODS[request.method])
        request.url = httpx.URL(signed)
        yield request


def auth_for(shop: Shop) -> httpx.Auth:
    """The way of authentication that the store's scheme allows.

    Raises:
        ToolError: the URL is neither http nor https.
    """
    scheme = httpx.URL(shop.url).scheme
    if scheme == "https":
        return httpx.BasicAuth(shop.consumer_key, shop.consumer_secret)
    if scheme == "http":
        return OAuth(shop)
    raise ToolError(f"The store's URL {shop.url!r} starts with neither https:// nor http://.")


class _HideKeys(logging.Filter):
    """Libraries log URLs, headers (a store's Link repeats the query) and what they sign, the consumer key in each."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                value.copy_with(query=b"...") if isinstance(value, httpx.URL) and b"oauth_" in value.query else value
                for value in record.args
            )
        return "oauth_" not in record.getMessage()


# A logger's filter holds for its own records only, not for those of its children.
for _name in ("httpx", "httpcore.http11", "httpcore.http2"):
    logging.getLogger(_name).addFilter(_HideKeys())
logging.getLogger("oauthlib").setLevel(logging.INFO)
