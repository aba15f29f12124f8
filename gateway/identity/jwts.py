"""JSON Web Tokens as Supabase signs them: HS256 by a secret, RS256 and ES256 by the public keys at an address.

Which key may check which algorithm is ours to say, not the token's: a secret never checks what claims a public key's
signature, and a public key is never taken for a secret.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
import jwt
import msgspec
import structlog
from jwt.types import Options

from gateway.acts import KEY_ROLES
from gateway.auth import Principal
from gateway.settings import JwtSettings

log = structlog.get_logger(__name__)

#: By the kind of a public key, what it may check.
_ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}
_LONGEST = 16_384
_LARGEST_SET = 256 * 1024
_MOST_KEYS = 64
_OPTIONS: Options = {"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True}


class BadToken(Exception):
    """A token is refused. The message is for its bearer, and tells nothing of keys."""


class KeysAway(Exception):
    """The public keys cannot be had."""


class Jwts:
    """Belongs to one event loop."""

    def __init__(self, settings: JwtSettings, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._public = None if settings.jwks_url is None else PublicKeys(settings, http)
        self._secret = None if settings.secret is None else settings.secret.get_secret_value()

    @property
    def wanted(self) -> bool:
        return self._secret is not None or self._public is not None

    async def principal(self, token: str) -> Principal:
        """Whom a token stands for.

        Raises:
            BadToken
            KeysAway: nobody can tell.
        """
        if len(token) > _LONGEST:
            raise BadToken("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise BadToken("The token is no JSON Web Token.") from None
        algorithm = header.get("alg")
        key: Any
        if algorithm == "HS256" and self._secret is not None:
            key = self._secret
        elif algorithm in _ALGORITHMS.values() and self._public is not None:
            key = await self._public.key(str(algorithm), header.get("kid"))
        else:
            raise BadToken("The token is signed in a way that is not taken here.")
        return self._of(self._claims(token, key, str(algorithm)))

    def _claims(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        settings = self._settings
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options=_OPTIONS,
            )
        except jwt.ExpiredSignatureError:
            raise BadToken("The token has expired.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise BadToken(f"The token does not hold: {type(error).__name__}.") from None

    def _of(self, claims: Mapping[str, Any]) -> Principal:
        settings = self._settings
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= 128 or not subject.isprintable():
            raise BadToken("The token does not say whose it is.")
        tenant, role = claim(claims, settings.tenant_claim), claim(claims, settings.role_claim)
        if not isinstance(tenant, str) or not tenant:
            raise BadToken(f"The token names no tenant: its claim {settings.tenant_claim} is missing.")
        role = settings.role if role is None else role
        for known in KEY_ROLES:
            if role == known:
                until = float(claims["exp"]) + settings.leeway_s
                return Principal(f"user:{subject}", known, tenant[:64], until=until)
        raise BadToken(f"The token has no role of {', '.join(KEY_ROLES)}: see its claim {settings.role_claim}.")


class PublicKeys:
    """The keys at an address, asked for when they are old or one is not among them; not more often than is set."""

    def __init__(self, settings: JwtSettings, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._http = http
        self._keys: dict[tuple[str, str | None], jwt.PyJWK] = {}
        self._read = self._tried = float("-inf")
        self._one = asyncio.Lock()

    async def key(self, algorithm: str, id: object) -> jwt.PyJWK:
        """Raises BadToken, KeysAway."""
        wanted = (algorithm, id if isinstance(id, str) else None)
        if wanted not in self._keys or time.monotonic() - self._read > self._settings.jwks_cache_s:
            async with self._one:
                await self._renew(wanted)
        if time.monotonic() - self._read > self._settings.jwks_cache_s + self._settings.jwks_stale_s:
            raise KeysAway("The keys that sign tokens cannot be read.")
        if wanted not in self._keys:
            raise BadToken("The token is signed with a key that is not known.")
        return self._keys[wanted]

    async def _renew(self, wanted: tuple[str, str | None]) -> None:
        now, settings = time.monotonic(), self._settings
        fresh = now - self._read <= settings.jwks_cache_s and wanted in self._keys
        if fresh or now - self._tried < settings.jwks_retry_s:  # somebody else has just asked
            return
        self._tried = now
        try:
            async with asyncio.timeout(settings.jwks_timeout_s):
                self._keys = _public(await self._fetch())
            self._read = time.monotonic()
        except (httpx.HTTPError, TimeoutError, ValueError, TypeError, jwt.PyJWTError) as error:
            log.warning("the keys that sign tokens cannot be read", url=str(settings.jwks_url), error=repr(error))

    async def _fetch(self) -> bytes:
        content = b""
        async with self._http.stream("GET", str(self._settings.jwks_url), follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise ValueError(f"answered {answer.status_code}")
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > _LARGEST_SET:
                    raise ValueError("the answer is too long")
        return content


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its path, such as `app_metadata.tenant`; None where there is none."""
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _public(content: bytes) -> dict[tuple[str, str | None], jwt.PyJWK]:
    """The public keys that check signatures, each under what it may check. A secret among them is no key."""
    found: dict[tuple[str, str | None], jwt.PyJWK] = {}
    for each in msgspec.json.decode(content, type=dict[str, Any])["keys"][:_MOST_KEYS]:
        algorithm = _ALGORITHMS.get(each.get("kty"))
        if algorithm is None or each.get("use", "sig") != "sig" or each.get("alg", algorithm) != algorithm:
            continue
        if algorithm == "ES256" and each.get("crv") != "P-256":
            continue
        try:
            found[algorithm, each.get("kid")] = jwt.PyJWK(each, algorithm)
        except jwt.PyJWTError:
            continue
    return found
