"""Tenants' credentials: sealed in the database, opened for their own tenant, seen nowhere else. With attacks."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_world import own_database
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker import Broker, Contexts, Journal
from gateway.broker.scrub import REMOVED, Scrubber
from gateway.credentials.keys import Keys, KeysError
from gateway.credentials.known import Secrets
from gateway.credentials.sealing import BadKey, Keyring, Sealed, SealError, key_text, new_key, read_keys
from gateway.credentials.store import BadCredential, CredentialRows, check_name, check_value
from gateway.credentials.vault import CredentialMissing, Vault
from gateway.db import Database
from gateway.settings import BrokerSettings, CredentialSettings, DatabaseSettings, Settings, load_settings
from gateway.tool_catalogue import Catalogue
from gateway.types import Grant
from servers.context import ToolContext
from servers.errors import ToolDenied, ToolError, UpstreamError
from servers.registry import Registry
from servers.tool import EVERYBODY, tool
from servers.woocommerce.client import store_of

VALUE = "cs_live_0123456789+/ä"


def vault_on(database: Database, data_dir: Path, *, refresh_s: float = 0, key: str | None = None) -> Vault:
    settings = CredentialSettings(refresh_s=refresh_s, key=key)  # type: ignore[arg-type]
    return Vault(CredentialRows(database), Keys(settings, data_dir), settings, Secrets())


@pytest.fixture(scope="module")
def url(postgres: str) -> Iterator[str]:
    with own_database(postgres) as found:
        yield found


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """The module's own, without rows."""
    opened = Database(url, DatabaseSettings(pool_size=2))
    await opened.open()
    await opened.execute(
        "SET session_replication_role = replica; TRUNCATE credential, administration, session CASCADE;"
        " SET session_replication_role = origin"  # the audit lets nobody else
    )
    yield opened
    await opened.close()


# -- sealing


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.text(min_size=1), st.text(min_size=1))
def test_a_value_opens_in_its_own_place_alone(
    tenant: str, name: str, value: str, other_tenant: str, other_name: str
) -> None:
    def plain(text: str) -> str:
        return text.encode(errors="replace").decode()

    tenant, name, value = plain(tenant), plain(name), plain(value)
    ring = Keyring([new_key()])
    sealed = ring.seal(tenant, name, value)
    assert ring.open(tenant, name, sealed) == value
    for place in ((other_tenant, name), (tenant, other_name), (tenant + name, ""), ("", tenant + name)):
        if place != (tenant, name):
            with pytest.raises(SealError):
                ring.open(*place, sealed)


@given(st.data())
def test_a_changed_bit_does_not_open(data: st.DataObject) -> None:
    ring = Keyring([new_key()])
    sealed = ring.seal("shop", "secret", VALUE)
    position = data.draw(st.integers(0, len(sealed.data) * 8 - 1))
    changed = bytearray(sealed.data)
    changed[position // 8] ^= 1 << position % 8
    with pytest.raises(SealError):
        ring.open("shop", "secret", Sealed(sealed.format, sealed.key_id, bytes(changed)))


@pytest.mark.parametrize("data", [b"", b"short", VALUE.encode(), b"\0" * 28])
def test_what_was_never_sealed_does_not_open(data: bytes) -> None:
    ring = Keyring([new_key()])
    with pytest.raises(SealError):
        ring.open("shop", "secret", Sealed(1, ring.newest, data))


@pytest.mark.parametrize("version", [-1, 0, 2])
def test_no_other_format_is_taken(version: int) -> None:
    """Else a row could be marked as one that needs no key."""
    ring = Keyring([new_key()])
    sealed = ring.seal("shop", "secret", VALUE)
    with pytest.raises(SealError, match="format"):
        ring.open("shop", "secret", Sealed(version, sealed.key_id, sealed.data))


def test_another_key_does_not_open_whatever_id_it_goes_by() -> None:
    ours, theirs = Keyring([new_key()]), Keyring([new_key()])
    sealed = ours.seal("shop", "secret", VALUE)
    with pytest.raises(SealError, match="not here"):
        theirs.open("shop", "secret", sealed)
    with pytest.raises(SealError):
        theirs.open("shop", "secret", Sealed(sealed.format, theirs.newest, sealed.data))


def test_the_same_value_is_never_sealed_to_the_same_bytes() -> None:
    ring = Keyring([new_key()])
    assert len({ring.seal("shop", "secret", VALUE).data for _ in range(100)}) == 100


def test_nothing_of_a_value_or_key_is_in_errors_or_representations() -> None:
    key = new_key()
    ring = Keyring([key])
    sealed = ring.seal("shop", "secret", VALUE)
    with pytest.raises(SealError) as error:
        ring.open("shop", "other", sealed)
    with pytest.raises(BadKey) as bad:
        read_keys(key_text(key)[:-3])
    for text in (str(error.value), repr(ring), repr(Secrets([VALUE])), str(bad.value)):
        assert VALUE not in text
        assert key_text(key)[:8] not in text
    assert error.value.__cause__ is None


# -- keys


def test_a_key_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    keys = Keys(CredentialSettings(), tmp_path)
    ring = keys.load()
    assert Keys(CredentialSettings(), tmp_path).load().ids == ring.ids
    assert keys.path.stat().st_mode & 0o777 == 0o600
    keys.path.chmod(0o640)
    with pytest.raises(KeysError, match="chmod 600"):
        keys.load()


@pytest.mark.parametrize("text", ["", "not base64 at all", base64.b64encode(b"x" * 31).decode()])
def test_a_file_that_holds_no_key_is_an_error_and_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    keys = Keys(CredentialSettings(), tmp_path)
    keys.path.write_text(text)
    keys.path.chmod(0o600)
    with pytest.raises(KeysError, match=r"credentials\.key"):
        keys.load()
    assert keys.path.read_text() == text


# -- in the database


async def test_the_database_has_neither_value_nor_key(database: Database, tmp_path: Path) -> None:
    vault = vault_on(database, tmp_path)
    await vault.put("shop", "secret", VALUE, "operator")
    assert await vault.value("shop", "secret") == VALUE
    [row] = await database.fetch("SELECT * FROM credential")
    kept = repr(row).encode() + row["sealed"] + repr(await database.fetch("SELECT * FROM administration")).encode()
    assert VALUE.encode() not in kept
    assert base64.b64encode(VALUE.encode()) not in kept
    assert [(e.name, e.changed_by) for e in await vault.entries("shop")] == [("secret", "operator")]


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE credential SET tenant = 'evil' WHERE tenant = 'shop'",
        "INSERT INTO credential SELECT 'evil', name, format, key_id, sealed, changed, changed_by FROM credential"
        " WHERE tenant = 'shop'",
        "UPDATE credential SET sealed = (SELECT sealed FROM credential WHERE tenant = 'shop' AND name = 'secret')"
        " WHERE tenant = 'evil'",
        "UPDATE credential SET name = 'secret', tenant = 'evil' WHERE name = 'other'",
    ],
)
async def test_a_value_that_is_moved_does_not_open(database: Database, tmp_path: Path, attack: str) -> None:
    vault = vault_on(database, tmp_path)
    await vault.put("shop", "secret", VALUE, "operator")
    await vault.put("shop", "other", VALUE[::-1], "operator")
    await vault.put("evil", "own", "evil's own value", "operator")
    await database.execute(attack)
    for name in ("secret", "own", "other"):
        try:
            found = await vault.value("evil", name)
        except CredentialMissing:
            continue
        assert found == "evil's own value"
    assert set((await vault.values("evil")).values()) <= {"evil's own value"}


async def test_one_that_does_not_open_takes_no_other_with_it(database: Database, tmp_path: Path) -> None:
    vault = vault_on(database, tmp_path)
    await vault.put("shop", "good", VALUE, "operator")
    await vault.put("shop", "bad", VALUE, "operator")
    await database.execute("UPDATE credential SET sealed = '\\x00' WHERE name = 'bad'")
    again = vault_on(database, tmp_path)
    await again.open()
    assert await again.value("shop", "good") == VALUE
    with pytest.raises(CredentialMissing, match="set it again"):
        await again.value("shop", "bad")


async def test_tools_role_sees_no_credential(database: Database, tmp_path: Path) -> None:
    await vault_on(database, tmp_path).put("shop", "secret", VALUE, "operator")
    for table in ("credential", "administration"):
        with pytest.raises(Exception, match="permission denied"):
            async with database.tenant("shop").transaction() as rows:
                await rows.fetch(f"SELECT * FROM {table}")


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "../x", "x" * 64, "_x", "1x", "a\n"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(BadCredential):
        check_name(name)


@pytest.mark.parametrize("value", ["", "short", "x" * 20_000, " padded value", "nul\0inside", "bell\x07inside"])
def test_values_are_plain_and_are_not_quoted(value: str) -> None:
    with pytest.raises(BadCredential) as error:
        check_value("name", value)
    assert not value or value not in str(error.value)


async def test_a_rotated_key_opens_everything_and_the_old_one_nothing(database: Database, tmp_path: Path) -> None:
    vault = vault_on(database, tmp_path)
    for tenant in ("shop", "other"):
        await vault.put(tenant, "secret", VALUE + tenant, "operator")
    old = Keys(CredentialSettings(), tmp_path).load()
    count, newest = await vault.rotate("operator (ann)")
    assert (count, newest != old.newest) == (2, True)
    assert Keys(CredentialSettings(), tmp_path).load().ids == (newest,)
    again = vault_on(database, tmp_path)
    for tenant in ("shop", "other"):
        assert await again.value(tenant, "secret") == VALUE + tenant
    for row in await CredentialRows(database).rows():
        with pytest.raises(SealError):
            old.open(row.tenant, row.name, row.sealed)
    acts = await database.fetch("SELECT principal, tenant, action, subject FROM administration ORDER BY id")
    assert acts[-1] == {
        "principal": "operator (ann)", "tenant": "", "action": "credential.key_rotated", "subject": newest
    }  # fmt: skip
    assert acts[0] == {"principal": "operator", "tenant": "shop", "action": "credential.set", "subject": "secret"}


async def test_a_rotation_that_breaks_off_loses_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = vault_on(database, tmp_path)
    await vault.put("shop", "secret", VALUE, "operator")

    async def killed(*_: object) -> int:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(CredentialRows, "reseal", killed)
        with pytest.raises(ConnectionError):
            await vault.rotate("operator")
    assert await vault_on(database, tmp_path).value("shop", "secret") == VALUE
    with monkeypatch.context() as patched:
        patched.setattr(Keys, "_write", _refuse_one)
        with pytest.raises(KeysError):
            await vault.rotate("operator")  # sealed anew, the old key not yet forgotten
    assert await vault_on(database, tmp_path).value("shop", "secret") == VALUE
    await vault.rotate("operator")
    assert await vault_on(database, tmp_path).value("shop", "secret") == VALUE
    assert len(Keys(CredentialSettings(), tmp_path).load().ids) == 1


def _refuse_one(keys: Keys, kept: list[bytes]) -> None:
    if len(kept) == 1:
        raise KeysError("killed")
    keys.path.write_text("".join(f"{key_text(key)}\n" for key in kept))


async def test_keys_of_the_settings_rotate_by_their_order(database: Database, tmp_path: Path) -> None:
    old, new = key_text(new_key()), key_text(new_key())
    await vault_on(database, tmp_path, key=old).put("shop", "secret", VALUE, "operator")
    both = vault_on(database, tmp_path, key=f"{new}, {old}")
    assert await both.value("shop", "secret") == VALUE
    assert (await both.rotate("operator"))[0] == 1
    assert await vault_on(database, tmp_path, key=new).value("shop", "secret") == VALUE
    with pytest.raises(CredentialMissing, match="not here"):
        await vault_on(database, tmp_path, key=old).value("shop", "secret")
    assert not (tmp_path / "credentials.key").exists()


async def test_two_gateways_with_one_key_file_follow_each_other(database: Database, tmp_path: Path) -> None:
    one, two = vault_on(database, tmp_path), vault_on(database, tmp_path)
    await one.put("shop", "secret", VALUE, "operator")
    assert await two.value("shop", "secret") == VALUE
    await one.rotate("operator")
    assert await two.value("shop", "secret") == VALUE
    await two.put("shop", "secret", VALUE + "2", "operator")
    assert await one.value("shop", "secret") == VALUE + "2"
    await one.delete("shop", "secret", "operator")
    with pytest.raises(CredentialMissing, match="omniops credentials set shop secret"):
        await two.value("shop", "secret")


# -- for tools


@tool(effect="read", roles=EVERYBODY, credentials=("secret",))
async def tell(ctx: ToolContext, *, how: str) -> list[str]:
    """Gives away what it was given, as a careless tool does."""
    if how == "error":
        raise UpstreamError(f"refused: {ctx.credentials['secret']}", data={"sent": dict(ctx.credentials)})
    if how == "bug":
        raise RuntimeError(f"bug with {ctx.credentials['secret']}")
    return [ctx.credentials["secret"], base64.b64encode(ctx.credentials["secret"].encode()).decode(), repr(ctx)]


@tool(effect="read", roles=EVERYBODY)
async def snoop(ctx: ToolContext) -> list[str]:
    """Looks for credentials that its record does not name."""
    return [*ctx.credentials.values(), repr(ctx)]


@tool(effect="read", roles=EVERYBODY)
async def keys_of_shop(ctx: ToolContext) -> bool:
    """Whether the store's keys are the stored ones."""
    store_of(ctx)
    return ctx.shop is not None and ctx.shop.consumer_secret == VALUE and ctx.shop.consumer_key == "ck_plain_setting"


@dataclass
class Shelf:
    """A broker with careless tools, and its vault."""

    broker: Broker
    vault: Vault
    contexts: Contexts
    database: Database

    async def session(self, tenant: str) -> Grant:
        grant = Grant(tenant=tenant, principal="chat", session=f"s-{tenant}", role="analyst")
        await self.database.execute(
            "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, %s, 'chat', 'analyst', 'live')",
            (grant.session, tenant),
        )
        await self.broker.begin_cell(grant.session, "c1")
        return grant


@pytest.fixture
async def shelf(database: Database, tmp_path: Path) -> AsyncIterator[Shelf]:
    store = {"url": "http://127.0.0.1:9", "consumer_key": "ck_plain_setting", "consumer_secret": "secret://secret"}
    settings: Settings = load_settings(
        data_dir=tmp_path, openai_api_key="hunter2222", tenants={"shop": {"shop": store}, "other": {}}
    )
    secrets = Secrets()
    config = CredentialSettings(refresh_s=0)
    vault = Vault(CredentialRows(database), Keys(config, tmp_path), config, secrets)
    async with httpx.AsyncClient() as http:
        contexts = Contexts(settings, database, http, None, vault, secrets)
        registry = Registry([tell, snoop, keys_of_shop], {tell.server: ""})
        broker = Broker(Catalogue(registry), Journal(database), contexts, BrokerSettings())
        yield Shelf(broker, vault, contexts, database)
        await broker.close()


async def call(shelf: Shelf, grant: Grant, name: str, **args: Any) -> Any:
    return await shelf.broker.call(grant, f"{tell.server}.{name}", args)


async def test_what_a_careless_tool_gives_away_is_taken_out(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    """Set while the gateway runs, and gone from results, errors, the journal, the log and transcripts at once."""
    grant = await shelf.session("shop")
    await shelf.vault.put("shop", "secret", VALUE, "operator")
    told = await call(shelf, grant, "tell", how="result")
    assert told[:2] == [REMOVED, REMOVED]
    errors = []
    for how in ("error", "bug"):
        with pytest.raises(ToolError) as error:
            await call(shelf, grant, "tell", how=how)
        errors.append(f"{error.value.message} {error.value.data} {error.value.hint}")
    kept = await shelf.database.fetch("SELECT call::text AS row FROM call")
    said = Scrubber(shelf.contexts.secrets).known(f"a cell printed {VALUE}")
    for text in (str(told), *errors, str(kept), said, "".join(capsys.readouterr())):
        assert VALUE not in text
        assert base64.b64encode(VALUE.encode()).decode() not in text


async def test_a_tool_gets_what_its_record_names_and_no_more(shelf: Shelf) -> None:
    grant = await shelf.session("shop")
    await shelf.vault.put("shop", "secret", VALUE, "operator")
    await shelf.vault.put("shop", "unnamed", "another value", "operator")
    [context] = await call(shelf, grant, "snoop")
    assert "another value" not in context
    assert REMOVED not in context  # not even the shop's keys


async def test_another_tenants_credentials_cannot_be_asked_for(shelf: Shelf) -> None:
    await shelf.vault.put("shop", "secret", VALUE, "operator")
    grant = await shelf.session("other")
    with pytest.raises(ToolDenied, match="'other' has no credential 'secret'"):
        await call(shelf, grant, "tell", how="result")
    with pytest.raises(CredentialMissing):
        await shelf.vault.resolve("other", "secret://shop/secret")
    with pytest.raises(CredentialMissing):
        await shelf.vault.resolve("other", "secret://../shop/secret")


async def test_a_stores_keys_may_be_references(shelf: Shelf) -> None:
    grant = await shelf.session("shop")
    with pytest.raises(ToolDenied, match="omniops credentials set shop secret"):
        await call(shelf, grant, "keys_of_shop")
    assert await call(shelf, grant, "snoop")  # it has nothing to do with the store
    await shelf.vault.put("shop", "secret", VALUE, "operator")
    await shelf.broker.end_cell(grant.session)
    await shelf.broker.begin_cell(grant.session, "c2")
    assert await call(shelf, grant, "keys_of_shop") is True


async def test_a_kept_value_is_used_while_the_database_is_away(database: Database, tmp_path: Path) -> None:
    vault = vault_on(database, tmp_path)
    await vault.put("shop", "secret", VALUE, "operator")
    assert await vault.value("shop", "secret") == VALUE
    await database.execute("ALTER TABLE credential RENAME TO away")
    try:
        assert await vault.value("shop", "secret") == VALUE
    finally:
        await database.execute("ALTER TABLE away RENAME TO credential")
