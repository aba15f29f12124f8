"""Who asks, as one gateway tells another: signed, for one request at one gateway, once, for a minute.

A gateway that brings a request to another has checked its caller; the client's own token does not travel. Nothing
that comes from outside is believed: without the gateways' secret no pass can be made.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time

import msgspec

from gateway.auth import Principal

HEADER = "x-omniops-peer"
#: Where a request that another gateway has checked says who asks, in its scope.
CALLER = "omniops.caller"
#: A pass holds for so long, seconds; gateways' clocks may differ by as much.
_VALID_S = 60.0


class _Pass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    caller: Principal
    #: The gateway that is asked.
    to: str
    method: str
    #: Path and query.
    target: str
    at: float
    nonce: str


class Passes:
    """Makes and checks them."""

    def __init__(self, secret: bytes, me: str) -> None:
        self._key = hmac.digest(b"omniops gateways 1", secret, hashlib.sha256)
        self._me = me
        #: Those that were used, and when they end.
        self._used: dict[str, float] = {}

    def make(self, caller: Principal, to: str, method: str, target: str) -> str:
        """The header's value."""
        about = _Pass(
            caller=caller, to=to, method=method, target=target, at=time.time(), nonce=secrets.token_urlsafe(16)
        )
        body = base64.urlsafe_b64encode(msgspec.json.encode(about)).decode()
        return f"{body}.{self._mac(body)}"

    def caller(self, value: str, method: str, target: str) -> Principal | None:
        """Who asks; None for a pass that does not hold for this request here, or was used."""
        body, _, mac = value.partition(".")
        if not hmac.compare_digest(self._mac(body).encode(), mac.encode(errors="replace")):
            return None
        try:
            about = msgspec.json.decode(base64.urlsafe_b64decode(body), type=_Pass)
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            return None
        now = time.time()
        wanted = (self._me, method, target)
        if (about.to, about.method, about.target) != wanted or abs(now - about.at) > _VALID_S:
            return None
        self._used = {nonce: until for nonce, until in self._used.items() if until > now}
        if about.nonce in self._used:
            return None
        self._used[about.nonce] = now + 2 * _VALID_S
        return about.caller

    def _mac(self, body: str) -> str:
        return hmac.new(self._key, body.encode(errors="replace"), hashlib.sha256).hexdigest()
