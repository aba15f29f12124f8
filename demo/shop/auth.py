"""Who is asking: REST API keys by Basic or query over https, OAuth 1.0a over plain http, as WooCommerce has it.

Over plain http a secret would be readable on the way, so keys sent as they are count as no keys at all there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import quote, unquote

from demo.shop.responses import ShopError

_OAUTH = (
    "oauth_consumer_key",
    "oauth_timestamp",
    "oauth_nonce",
    "oauth_signature",
    "oauth_signature_method",
)
_DIGESTS = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256"}
_CLOCK_SKEW_S = 900


Permissions = Literal["read", "write", "read_write"]
_PERMISSIONS: tuple[Permissions, ...] = get_args(Permissions)


@dataclass(frozen=True)
class Key:
    """One REST API key of the shop."""

    consumer_key: str
    consumer_secret: str
    permissions: Permissions = "read_write"

    @classmethod
    def read(cls, text: str) -> Key:
        """The key written as key:secret:permissions. Raises ValueError."""
        key, secret, permissions = text.split(":")
        for known in _PERMISSIONS:
            if permissions == known:
                return cls(key, secret, known)
        raise ValueError(f"Permissions are one of {', '.join(_PERMISSIONS)}, not {permissions!r}")

    def __repr__(self) -> str:
        return f"Key(permissions={self.permissions!r})"


@dataclass(frozen=True)
class Call:
    """What authentication looks at. `url` is without its query."""

    method: str
    url: str
    https: bool
    query: Sequence[tuple[str, str]]
    authorization: str


class Keys:
    """The shop's keys, and the OAuth nonces that have been used."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = {key.consumer_key: key for key in keys}
        self._nonces: dict[tuple[str, str], float] = {}

    def authenticate(self, call: Call) -> Key | None:
        """The caller's key; None for a stranger. Raises ShopError for a wrong secret, signature or permission."""
        key = (self._plain(call) if call.https else None) or self._oauth(call)
        if key is not None:
            _check_permission(key, call.method)
        return key

    def _plain(self, call: Call) -> Key | None:
        query = dict(call.query)
        name, secret = query.get("consumer_key", ""), query.get("consumer_secret", "")
        if not (name and secret):
            name, secret = _basic(call.authorization)
        key = self._keys.get(name)
        if key is None:
            return None
        if not hmac.compare_digest(key.consumer_secret.encode(), secret.encode()):
            raise _denied("Consumer secret is invalid.")
        return key

    def _oauth(self, call: Call) -> Key | None:
        header = _oauth_header(call.authorization)
        given = header or dict(call.query)
        if not any(name in given for name in _OAUTH):
            return None
        missing = [name for name in _OAUTH if not given.get(name)]
        if missing:
            raise _denied(f"Missing OAuth parameters {', '.join(missing)}")
        key = self._keys.get(given["oauth_consumer_key"])
        if key is None:
            raise _denied("Consumer key is invalid.")
        query = dict(call.query)  # of one name twice PHP has the last
        pairs = [*query.items(), *header.items()] if header else list(query.items())
        if not hmac.compare_digest(_signature(call, pairs, given, key), given["oauth_signature"]):
            raise _denied("Invalid signature - provided signature does not match.")
        self._use_nonce(key, given["oauth_nonce"], given["oauth_timestamp"])
        return key

    def _use_nonce(self, key: Key, nonce: str, stamp: str) -> None:
        moment = time.time()
        if not stamp.isdigit() or abs(moment - int(stamp)) > _CLOCK_SKEW_S:
            raise _denied("Invalid timestamp.")
        self._nonces = {used: at for used, at in self._nonces.items() if moment - at < _CLOCK_SKEW_S}
        if (key.consumer_key, nonce) in self._nonces:
            raise _denied("Invalid nonce - nonce has already been used.")
        self._nonces[key.consumer_key, nonce] = moment


def _denied(message: str) -> ShopError:
    return ShopError(401, "woocommerce_rest_authentication_error", message)


def _check_permission(key: Key, method: str) -> None:
    wanted = "read" if method in ("GET", "HEAD") else "write"
    if key.permissions not in (wanted, "read_write"):
        raise KeyNotAllowed(f"The API key provided does not have {wanted} permissions.")


class KeyNotAllowed(ShopError):
    """The caller is known, but the key may not do this. Still a 401, as recorded."""

    def __init__(self, message: str) -> None:
        super().__init__(401, "woocommerce_rest_authentication_error", message)


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, secret


def _oauth_header(authorization: str) -> dict[str, str]:
    if not authorization.startswith("OAuth "):
        return {}
    pairs = re.findall(r'(oauth_[a-z_-]+)="([^"]*)"', authorization)
    return {name: unquote(value) for name, value in pairs}


def _signature(call: Call, pairs: Sequence[tuple[str, str]], given: Mapping[str, str], key: Key) -> str:
    """RFC 5849, section 3.4, over the query and the OAuth parameters; a JSON body is not signed."""
    digest = _DIGESTS.get(given["oauth_signature_method"])
    if digest is None:
        raise _denied("Invalid signature - signature method is invalid.")
    encoded = sorted((_encode(name), _encode(value)) for name, value in pairs if name != "oauth_signature")
    parameters = "&".join(f"{name}={value}" for name, value in encoded)
    text = "&".join((call.method, _encode(call.url), _encode(parameters)))
    signed = hmac.new(f"{key.consumer_secret}&".encode(), text.encode(), getattr(hashlib, digest))
    return base64.b64encode(signed.digest()).decode()


def _encode(text: str) -> str:
    return quote(text, safe="-._~")
