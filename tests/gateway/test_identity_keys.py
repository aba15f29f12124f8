"""API keys: made, held against, rotated, revoked, heard of by every gateway; and what strangers may try."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from own_database import own_database

from gateway.auth import Principal, Tokens
from gateway.db import Database
from gateway.identity.allowance import Allowance
from gateway.identity.buckets import Buckets
from gateway.identity.identity import Identity, TooOften, WrongToken
from gateway.identity.keys import KeyProblem, NewKey, parts_of
from gateway.settings import DatabaseSettings, IdentitySettings, LimitSettings, load_settings

#: Long enough that nothing is looked up again unless it was heard of.
FOR_EVER = IdentitySettings(cache_s=3600, wrong_per_minute=3)


@pytest.fixture(scope="module")
def url(postgres: str) -> Iterator[str]:
    with own_database(postgres) as found:
        yield found


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = Database(url, DatabaseSettings(pool_size=4))
    await opened.open()
    await opened.execute("DELETE FROM api_key")
    yield opened
    await opened.close()


def identity_on(database: Database, settings: IdentitySettings = FOR_EVER, **limits: float) -> Identity:
    counted = LimitSettings(**limits)
    allowance = Allowance(database, load_settings(limits=counted))
    return Identity(Tokens("operator", {}), database, settings, counted, httpx.AsyncClient(), allowance)


@pytest.fixture
def identity(database: Database) -> Identity:
    return identity_on(database)


async def made(identity: Identity, **more: object) -> NewKey:
    values = {"role": "analyst", "tenant": "shop", "label": "olaf's", "by": "test"} | more
    return await identity.keys.create(**values)  # type: ignore[arg-type]


async def test_a_key_stands_for_its_role_and_tenant(identity: Identity) -> None:
    key = await made(identity)
    found = await identity.principal(key.text, "")
    assert (found.name, found.role, found.tenant) == (f"key:{key.key.id}", "analyst", "shop")
    everywhere = await made(identity, role="ops", tenant=None)
    assert (await identity.principal(everywhere.text, "")).tenant is None


async def test_the_database_has_nothing_that_opens(identity: Identity, database: Database) -> None:
    key = await made(identity)
    secret = key.text.rpartition(f"{key.key.id}_")[2]
    kept = repr([await database.fetch(f"SELECT * FROM {table}") for table in ("api_key", "api_key_secret")])
    kept += repr(await database.fetch("SELECT * FROM administration"))
    assert secret not in kept
    assert repr(hashlib.sha256(secret.encode()).digest()) in kept
    assert secret not in repr(await identity.principal(key.text, ""))
    with pytest.raises(Exception, match="permission denied"):
        async with database.tenant("shop").transaction() as rows:
            await rows.fetch("SELECT * FROM api_key_secret")


async def test_keys_are_never_the_same_and_long_enough(identity: Identity) -> None:
    keys = [await made(identity) for _ in range(5)]
    assert len({parts_of(key.text) for key in keys}) == 5
    assert {len(key.text) - len(f"omk_{key.key.id}_") for key in keys} == {43}  # 256 bits


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "A", lambda t: t.upper(), lambda t: t[:-1] + "\n"])
async def test_what_is_nearly_a_key_is_none(identity: Identity, change: object) -> None:
    key = await made(identity)
    with pytest.raises(WrongToken):
        await identity.principal(change(key.text), "")  # type: ignore[operator]


async def test_another_keys_secret_opens_nothing(identity: Identity) -> None:
    one, other = await made(identity), await made(identity, role="admin", tenant=None)
    mixed = f"omk_{other.key.id}_{one.text[-43:]}"
    assert parts_of(mixed) is not None
    with pytest.raises(WrongToken):
        await identity.principal(mixed, "")


async def test_a_rotated_key_has_two_secrets_for_a_while_and_one_name(identity: Identity, database: Database) -> None:
    before = await made(identity)
    after = await identity.keys.rotate(before.key.id, tenant="shop", by="test", overlap_s=3600)
    identity.book.forget()
    old, new = [await identity.principal(key.text, "") for key in (before, after)]
    assert (old.name, old.role, old.tenant) == (new.name, new.role, new.tenant)
    assert old.until is not None
    assert new.until is None
    await database.execute("UPDATE api_key_secret SET expires = now() WHERE expires IS NOT NULL")
    identity.book.forget()
    with pytest.raises(WrongToken, match="revoked"):
        await identity.principal(before.text, "")
    assert await identity.principal(after.text, "") == new


async def test_without_overlap_the_secret_of_before_ends_at_once(identity: Identity) -> None:
    before = await made(identity)
    await identity.principal(before.text, "")
    await identity.keys.rotate(before.key.id, tenant=None, by="test", overlap_s=0)
    identity.book.forget()
    with pytest.raises(WrongToken):
        await identity.principal(before.text, "")


async def test_a_second_rotation_leaves_no_secret_longer_than_the_first_said(identity: Identity) -> None:
    first = await made(identity)
    await identity.keys.rotate(first.key.id, tenant=None, by="test", overlap_s=60)
    await identity.keys.rotate(first.key.id, tenant=None, by="test", overlap_s=3600)
    identity.book.forget()
    until = (await identity.principal(first.text, "")).until
    assert until is not None
    assert until < (datetime.now(UTC) + timedelta(seconds=600)).timestamp()


async def test_an_expired_key_opens_nothing_though_it_is_kept(identity: Identity, database: Database) -> None:
    key = await made(identity, expires=datetime.now(UTC) + timedelta(hours=1))
    caller = await identity.principal(key.text, "")
    assert await identity.still(caller)
    await database.execute("UPDATE api_key SET expires = now()")
    identity.book.forget()
    assert not await identity.still(caller)
    with pytest.raises(WrongToken):
        await identity.principal(key.text, "")
    with pytest.raises(KeyProblem, match="does not count"):
        await identity.keys.rotate(key.key.id, tenant=None, by="test", overlap_s=0)


async def test_a_revocation_is_heard_of_by_every_gateway(identity: Identity, database: Database) -> None:
    """Nothing expires here and nobody looks again: the other gateway is told, and so is who waits at an open socket."""
    other = identity_on(database)
    listening = asyncio.create_task(other.book.run())
    try:
        key = await made(identity)
        caller = await other.principal(key.text, "")
        async with asyncio.timeout(60):
            while not await database.fetch("SELECT 1 FROM pg_stat_activity WHERE query = 'LISTEN omniops_keys'"):
                await asyncio.sleep(0.02)
        connected = asyncio.create_task(other.gone(caller))
        await asyncio.sleep(0)
        await identity.keys.revoke(key.key.id, tenant=None, by="test")
        async with asyncio.timeout(60):
            await connected
        with pytest.raises(WrongToken):
            await other.principal(key.text, "")
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_without_word_of_it_a_key_counts_no_longer_than_is_set(identity: Identity, database: Database) -> None:
    deaf = identity_on(database, IdentitySettings(cache_s=0))
    key = await made(identity)
    await deaf.principal(key.text, "")
    await identity.keys.revoke(key.key.id, tenant=None, by="test")
    with pytest.raises(WrongToken):
        await deaf.principal(key.text, "")


async def test_when_a_key_was_used_is_noted(identity: Identity) -> None:
    key = await made(identity)
    assert key.key.last_used is None
    await identity.principal(key.text, "")
    await identity.book.flush()
    [found] = await identity.keys.list("shop")
    assert found.last_used is not None


async def test_a_tenant_reaches_no_key_of_another(identity: Identity) -> None:
    key, everywhere = await made(identity), await made(identity, tenant=None)
    for id in (key.key.id, everywhere.key.id):
        with pytest.raises(KeyProblem, match="no key"):
            await identity.keys.rotate(id, tenant="other", by="test", overlap_s=0)
        with pytest.raises(KeyProblem, match="no key"):
            await identity.keys.revoke(id, tenant="other", by="test")
    assert await identity.keys.list("other") == []
    identity.book.forget()
    await identity.principal(key.text, "")


async def test_only_a_first_start_makes_a_key_and_two_at_once_make_one(identity: Identity, database: Database) -> None:
    found = await asyncio.gather(*(identity_on(database).keys.first("first", "test") for _ in range(4)))
    [first] = [each for each in found if each is not None]
    assert (first.key.role, first.key.tenant) == ("admin", None)
    await identity.keys.revoke(first.key.id, tenant=None, by="test")
    assert await identity.keys.first("again", "test") is None


@pytest.mark.parametrize(
    "wrong", [{"label": " "}, {"label": "a\nb"}, {"role": "root"}, {"expires": datetime(2020, 1, 1, tzinfo=UTC)}]
)
async def test_what_makes_no_key(identity: Identity, wrong: dict[str, object]) -> None:
    with pytest.raises(KeyProblem):
        await made(identity, **wrong)


# -- how often


async def test_who_tries_tokens_is_stopped_and_others_are_not(identity: Identity) -> None:
    key, unknown = await made(identity), await made(identity)
    await identity.principal(key.text, "192.0.2.1")
    for _ in range(3):
        with pytest.raises(WrongToken):
            await identity.principal("a-guess", "192.0.2.1")
    with pytest.raises(TooOften) as stopped:
        await identity.principal("a-guess", "192.0.2.1")
    assert 1 <= stopped.value.after_s <= 60
    with pytest.raises(TooOften):  # a right one is not told from a wrong one
        await identity.principal(unknown.text, "192.0.2.1")
    assert (await identity.principal(key.text, "192.0.2.1")).tenant == "shop"  # one that is known goes on
    assert (await identity.principal(unknown.text, "192.0.2.2")).tenant == "shop"


async def test_one_network_of_ipv6_is_one_place(identity: Identity) -> None:
    for last in range(3):
        with pytest.raises(WrongToken):
            await identity.principal("a-guess", f"2001:db8:1:2::{last}")
    with pytest.raises(TooOften):
        await identity.principal("a-guess", "2001:db8:1:2:ffff::1")
    with pytest.raises(WrongToken):
        await identity.principal("a-guess", "2001:db8:1:3::1")


async def test_requests_are_counted_by_token_and_by_tenant(database: Database) -> None:
    limits = {"requests_per_minute": 60, "tenant_requests_per_minute": 120, "burst_s": 3}
    identity = identity_on(database, **limits)
    callers = [Principal(f"key:{number}", "agent", "shop") for number in range(3)]
    for caller in callers[:2]:
        for _ in range(3):
            identity.admit(caller)
    with pytest.raises(TooOften, match=r"limits.requests_per_minute"):
        identity.admit(callers[0])
    with pytest.raises(TooOften, match="tenant"):
        identity.admit(callers[2])
    identity.admit(Principal("key:9", "agent", "other"))
    for _ in range(1000):
        identity.admit(Principal("operator", "admin", unlimited=True))


def test_a_bucket_fills_again_and_says_when() -> None:
    now = [0.0]
    buckets = Buckets(60, 2, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1.0]
    assert buckets.take("b") == 0
    now[0] = 0.75
    assert buckets.take("a") == pytest.approx(0.25)
    now[0] = 1.0
    assert [buckets.take("a"), buckets.take("a")] == [0, 1.0]
    now[0] = 1000.0
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1.0]


def test_names_without_end_fill_no_memory() -> None:
    buckets = Buckets(60, 1)
    for number in range(10_500):
        buckets.take(str(number))
    assert len(buckets._levels) == 10_000
