"""JSON Web Tokens: what Supabase signs is taken, and nothing else, whatever a token says about itself."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from gateway.identity.jwts import BadToken, Jwts, KeysAway
from gateway.settings import JwtSettings

SECRET = "a-secret-of-supabase-with-32-characters-or-more"
ISSUER = "https://project.supabase.co/auth/v1"
RSA_KEY, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def claims(**more: Any) -> dict[str, Any]:
    """As Supabase has them."""
    usual = {
        "iss": ISSUER,
        "aud": "authenticated",
        "sub": "7d2f4c1e-1111-4222-8333-444455556666",
        "role": "authenticated",
        "iat": int(time.time()),
        "exp": int(time.time()) + 3600,
        "app_metadata": {"tenant": "shop", "role": "analyst"},
        "user_metadata": {"tenant": "other", "role": "admin"},
    }
    return {name: value for name, value in (usual | more).items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm, headers={"kid": kid} if kid else None)


class Keys:
    """The address of public keys, as a server has it."""

    def __init__(self) -> None:
        self.content: bytes = b""
        self.asked = 0
        self.status = 200
        self.delay_s = 0.0

    def serve(self, *keys: dict[str, Any]) -> None:
        self.content = json.dumps({"keys": keys}).encode()


def public(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, Keys]]:
    keys = Keys()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.asked += 1
            time.sleep(keys.delay_s)
            self.send_response(keys.status)
            self.send_header("location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(keys.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/jwks.json", keys
    server.shutdown()


@pytest.fixture
async def jwts(address: tuple[str, Keys]) -> AsyncIterator[Callable[..., Jwts]]:
    url, keys = address
    keys.asked, keys.status, keys.delay_s = 0, 200, 0.0
    keys.serve(public(RSA_KEY, "r1"), public(EC_KEY, "e1"))
    async with httpx.AsyncClient(trust_env=False) as http:

        def make(**settings: Any) -> Jwts:
            return Jwts(JwtSettings(**{"secret": SECRET, "jwks_url": url, "issuer": ISSUER} | settings), http)

        yield make


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(SECRET, "HS256", None), (RSA_KEY, "RS256", "r1"), (EC_KEY, "ES256", "e1")]
)
async def test_what_supabase_signs_is_taken(jwts: Callable[..., Jwts], key: Any, algorithm: str, kid: str) -> None:
    found = await jwts().principal(signed(key, algorithm, kid))
    assert (found.name, found.role, found.tenant) == (f"user:{claims()['sub']}", "analyst", "shop")
    assert found.until is not None
    assert found.until > time.time()


def _pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _by_hand(header: dict[str, Any], key: bytes = b"", **more: Any) -> str:
    """A token that no library would make."""
    import hashlib
    import hmac

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    body = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims(**more)).encode())}"
    return f"{body}.{part(hmac.digest(key, body.encode(), hashlib.sha256)) if key else ''}"


FORGED: dict[str, Callable[[], str]] = {
    "no signature": lambda: _by_hand({"alg": "none"}),
    "no signature, written otherwise": lambda: _by_hand({"alg": "nOnE"}),
    "no algorithm": lambda: _by_hand({"typ": "JWT"}, SECRET.encode()),
    "a public key as secret": lambda: _by_hand({"alg": "HS256", "kid": "r1"}, _pem(RSA_KEY)),
    "a public key as secret of RS256": lambda: _by_hand({"alg": "RS256", "kid": "r1"}, _pem(RSA_KEY)),
    "the empty secret": lambda: _by_hand({"alg": "HS256"}, b"\0"),
    "another secret": lambda: signed("another-secret-with-32-characters-or-more"),
    "another algorithm": lambda: signed(SECRET, "HS512"),
    "another key under a known name": lambda: signed(OTHER_RSA, "RS256", "r1"),
    "a key of the wrong kind": lambda: signed(RSA_KEY, "RS256", "e1"),
    "an unknown key": lambda: signed(OTHER_RSA, "RS256", "r2"),
    "a key of its own": lambda: jwt.encode(claims(), OTHER_RSA, "RS256", headers={"jwk": public(OTHER_RSA, "x")}),
    "an address of its own": lambda: jwt.encode(claims(), OTHER_RSA, "RS256", headers={"jku": "http://127.0.0.1:1/"}),
    "a signature cut off": lambda: signed().rpartition(".")[0] + ".",
    "a body exchanged": lambda: ".".join(
        (signed().split(".")[0], signed(sub="admin").split(".")[1], signed().split(".")[2])
    ),
    "rubbish": lambda: "a.b.c",
    "too long": lambda: signed(more="x" * 20_000),
    "expired": lambda: signed(exp=int(time.time()) - 31),
    "without end": lambda: signed(exp=None),
    "not yet": lambda: signed(nbf=int(time.time()) + 3600),
    "for others": lambda: signed(aud="service"),
    "for nobody, as Supabase's anon and service keys": lambda: signed(aud=None, role="service_role"),
    "by others": lambda: signed(iss="https://another.supabase.co/auth/v1"),
    "by nobody": lambda: signed(iss=None),
    "of nobody": lambda: signed(sub=None),
    "of a strange name": lambda: signed(sub="a\nb"),
    "no tenant but the user's word": lambda: signed(app_metadata={"role": "admin"}),
    "a tenant that is no text": lambda: signed(app_metadata={"tenant": ["shop"], "role": "admin"}),
    "an empty tenant": lambda: signed(app_metadata={"tenant": "", "role": "admin"}),
    "no role but the user's word": lambda: signed(app_metadata={"tenant": "shop"}),
    "an unknown role": lambda: signed(app_metadata={"tenant": "shop", "role": "operator"}),
    "a role that is no text": lambda: signed(app_metadata={"tenant": "shop", "role": {"admin": 1}}),
    "the configuration's roles": lambda: signed(app_metadata={"tenant": "shop", "role": "tenant"}),
}


@pytest.mark.parametrize("how", FORGED)
async def test_nothing_else_is(jwts: Callable[..., Jwts], how: str) -> None:
    with pytest.raises(BadToken) as refused:
        await jwts().principal(FORGED[how]())
    assert SECRET not in str(refused.value)


async def test_what_is_not_set_up_is_not_taken(jwts: Callable[..., Jwts]) -> None:
    with pytest.raises(BadToken, match="not taken"):
        await jwts(secret=None).principal(signed())
    with pytest.raises(BadToken, match="not taken"):
        await jwts(jwks_url=None).principal(signed(RSA_KEY, "RS256", "r1"))
    with pytest.raises(BadToken, match="not taken"):  # a public key is no secret, where there is no secret either
        await jwts(secret=None).principal(FORGED["a public key as secret"]())


async def test_clocks_may_be_apart_a_little(jwts: Callable[..., Jwts]) -> None:
    await jwts().principal(signed(exp=int(time.time()) - 5, nbf=int(time.time()) + 5))
    with pytest.raises(BadToken):
        await jwts(leeway_s=0).principal(signed(exp=int(time.time()) - 5))


async def test_other_claims_can_be_set_and_a_role_given_to_those_without(jwts: Callable[..., Jwts]) -> None:
    made = jwts(tenant_claim="org.id", role_claim="org.role", role="agent")
    found = await made.principal(signed(org={"id": "other"}))
    assert (found.tenant, found.role) == ("other", "agent")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant_claim": "user_metadata.tenant"},
        {"role_claim": "user_metadata.role"},
        {"tenant_claim": "app_metadata..tenant"},
        {"secret": "short"},
        {"jwks_url": "http://example.com/jwks.json"},
        {"issuer": None},
    ],
)
def test_settings_that_would_let_strangers_in_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        JwtSettings(**{"secret": SECRET, "issuer": ISSUER} | wrong)
    assert SECRET not in str(refused.value)


# -- public keys


async def test_public_keys_are_asked_for_once_and_again_for_a_new_one(
    jwts: Callable[..., Jwts], address: tuple[str, Keys]
) -> None:
    made, keys = jwts(jwks_retry_s=0.001), address[1]
    for _ in range(3):
        await made.principal(signed(RSA_KEY, "RS256", "r1"))
    assert keys.asked == 1
    keys.serve(public(OTHER_RSA, "r2"))
    await made.principal(signed(OTHER_RSA, "RS256", "r2"))
    assert keys.asked == 2
    with pytest.raises(BadToken):  # it was taken back with the new set
        await made.principal(signed(RSA_KEY, "RS256", "r1"))


async def test_a_flood_of_unknown_keys_is_one_request(jwts: Callable[..., Jwts], address: tuple[str, Keys]) -> None:
    made = jwts()
    for number in range(20):
        with pytest.raises(BadToken):
            await made.principal(signed(OTHER_RSA, "RS256", f"unknown-{number}"))
    assert address[1].asked == 1
    await made.principal(signed(RSA_KEY, "RS256", "r1"))


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "oct", "kid": "r1", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "alg": "HS256"},
        public(RSA_KEY, "r1", use="enc"),
        public(RSA_KEY, "r1", alg="RS512"),
        {"kty": "RSA", "kid": "r1", "n": "AQAB", "e": "AQAB"},
        {"kid": "r1"},
    ],
)
async def test_keys_that_check_no_signature_of_ours_are_none(
    jwts: Callable[..., Jwts], address: tuple[str, Keys], odd: dict[str, Any]
) -> None:
    address[1].serve(odd, public(EC_KEY, "e1"))
    made = jwts()
    with pytest.raises(BadToken):
        await made.principal(signed(RSA_KEY, "RS256", "r1"))
    await made.principal(signed(EC_KEY, "ES256", "e1"))


@pytest.mark.parametrize("trouble", ["status", "redirect", "rubbish", "huge", "silent"])
async def test_an_address_in_trouble_lets_nobody_in_and_holds_up_nobody(
    jwts: Callable[..., Jwts], address: tuple[str, Keys], trouble: str
) -> None:
    keys = address[1]
    keys.status = {"status": 500, "redirect": 302}.get(trouble, 200)
    keys.delay_s = 0.5 if trouble == "silent" else 0.0
    keys.content = {"rubbish": b"[1]", "huge": b" " * 2**20}.get(trouble, keys.content)
    made = jwts(jwks_timeout_s=0.2 if trouble == "silent" else 30)
    with pytest.raises(KeysAway):
        await made.principal(signed(RSA_KEY, "RS256", "r1"))
    await made.principal(signed())  # by secret all the same


async def test_keys_that_were_read_count_while_the_address_is_away_for_a_while(
    jwts: Callable[..., Jwts], address: tuple[str, Keys]
) -> None:
    token = signed(RSA_KEY, "RS256", "r1")
    patient = jwts(jwks_cache_s=1e-9, jwks_retry_s=1e-9)
    hasty = jwts(jwks_cache_s=1e-9, jwks_retry_s=1e-9, jwks_stale_s=0)
    await patient.principal(token)
    address[1].status = 503
    await patient.principal(token)
    with pytest.raises(KeysAway):
        await hasty.principal(token)
