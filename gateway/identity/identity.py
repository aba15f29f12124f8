"""Who calls, by any kind of token: the configuration's, an API key, a JSON Web Token; and how often they may."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import time

import httpx
import psycopg
from psycopg_pool import PoolTimeout

from gateway.auth import Principal, Tokens
from gateway.db import Database
from gateway.identity.allowance import Allowance
from gateway.identity.book import KeyBook
from gateway.identity.buckets import Buckets
from gateway.identity.jwts import BadToken, Jwts
from gateway.identity.keys import KeyRows, parts_of
from gateway.settings import IdentitySettings, LimitSettings

#: One minute's worth of wrong tokens may come at once.
_MINUTE = 1.0


class WrongToken(Exception):
    """A token stands for nobody. The message is for its bearer."""


class TooOften(Exception):
    """The message is for people; `after_s`: when to come again."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = max(1, math.ceil(after_s))


class Identity:
    """Belongs to one event loop."""

    def __init__(
        self,
        tokens: Tokens,
        database: Database,
        settings: IdentitySettings,
        limits: LimitSettings,
        http: httpx.AsyncClient,
        allowance: Allowance,
    ) -> None:
        self.tokens = tokens
        self.keys = KeyRows(database)
        self.book = KeyBook(database, self.keys, settings)
        self.allowance = allowance
        self._jwts = Jwts(settings.jwt, http)
        self._wrong = Buckets(settings.wrong_per_minute, settings.wrong_per_minute * _MINUTE)
        self._callers = _buckets(limits.requests_per_minute, limits)
        self._tenants = _buckets(limits.tenant_requests_per_minute, limits)

    async def principal(self, token: str, source: str) -> Principal:
        """Whose token it is. `source`: the client's address, which is asked to wait when it has sent many wrong ones.

        Raises:
            WrongToken, TooOften
            psycopg.Error, PoolTimeout, KeysAway: nobody can tell now.
        """
        found = self.tokens.principal(token)
        if found is not None:
            return found
        key, place = parts_of(token), _place(source)
        if (key is None or not self.book.knows(key[0])) and (wait := self._wrong.wait(place)):
            raise TooOften("Too many wrong access tokens came from this address.", wait)
        why = "The access token is wrong."
        if key is not None:
            found = await self.book.principal(*key)
            why = "The access token is wrong, has expired, or was revoked."
        elif self._jwts.wanted and token.count(".") == 2:
            try:
                found = await self._jwts.principal(token)
            except BadToken as error:
                why = str(error)
        if found is None:
            self._wrong.take(place)
            raise WrongToken(why)
        return found

    def admit(self, caller: Principal) -> None:
        """Count a request. Raises TooOften."""
        if caller.unlimited:
            return
        if wait := self._callers.take(caller.name):
            raise TooOften("This token has sent too many requests (limits.requests_per_minute).", wait)
        if caller.tenant is not None and (wait := self._tenants.take(caller.tenant)):
            what = "The tenant's tokens have sent too many requests (limits.tenant_requests_per_minute)."
            raise TooOften(what, wait)

    async def still(self, caller: Principal) -> bool:
        """Whether a caller of before would be let in now; while the database is away, as far as anybody knows."""
        if caller.until is not None and caller.until <= time.time():
            return False
        if caller.key is None:
            return True
        try:
            return await self.book.principal(*caller.key) is not None
        except (psycopg.Error, PoolTimeout):
            return True

    async def gone(self, caller: Principal) -> None:
        """Wait until a caller would not be let in any more: for connections that stay open."""
        while await self.still(caller):
            wait = None if caller.until is None else max(0.0, caller.until - time.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await (self.book.changed() if caller.key else asyncio.Event().wait())


def _buckets(per_minute: int, limits: LimitSettings) -> Buckets:
    return Buckets(per_minute, per_minute / 60 * limits.burst_s)


def _place(source: str) -> str:
    """An address as it is counted: of IPv6 the network, for one client has all of it."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if address.version == 4:
        return source
    return str(ipaddress.ip_network(f"{source.partition('%')[0]}/64", strict=False))
