"""Links to export files: what lets nobody in, what is left when they end, and who is told."""

from __future__ import annotations

import time
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from gateway_world import own_database, settings_for
from gdpr_world import EMAIL, export

from gateway.app import create_app
from gateway.gdpr.links import Links
from gateway.runtime import Gateway, open_gateway
from gateway.types import Grant

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRANT = Grant(tenant="shop", principal="ada", session="asking", role="operator")
OWN = "the-shops-own-token"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    with own_database(postgres) as url:
        tenants = {"shop": {"token": OWN}, "other": {}}
        more = {"pool": {"provisioner": "local", "warm": 0, "preload": ()}, "gdpr": {"look_s": 3600}}
        settings = settings_for(tmp_path_factory.mktemp("links"), url, tenants=tenants, **more)
        async with open_gateway(settings) as gateway:
            yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


async def acts(gateway: Gateway, action: str) -> list[tuple[str, str]]:
    found = await gateway.audit.find(action=action)
    return [(each.principal, each.subject) for each in found]


def file_of(gateway: Gateway, id: str) -> Path:
    return gateway.data_dir.path / "exports" / "shop" / f"{id}.zip"


async def test_a_link_gives_its_file_until_it_is_revoked_and_each_use_is_in_the_audit(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    report = await export(gateway, GRANT)
    for _ in range(2):
        answer = await http.get(report["link"])  # without a token: the link is one
        assert (answer.status_code, len(answer.content)) == (200, report["file_bytes"])
    assert "manifest.json" in zipfile.ZipFile(BytesIO(answer.content)).namelist()
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["cache-control"] == "no-store"
    assert await acts(gateway, "gdpr.download") == [("link", report["export"])] * 2
    [(who, what)] = await acts(gateway, "gdpr.export")
    assert (who, EMAIL.lower() in what.lower()) == ("ada", False)

    server, own = ({"authorization": f"Bearer {token}"} for token in (gateway.token, OWN))
    for method in (http.get, http.delete):
        path = "/v1/exports" if method == http.get else f"/v1/exports/{report['export']}"
        assert (await method(path)).status_code == 401
        assert (await method(path, headers=own)).status_code == 403
    [listed] = (await http.get("/v1/exports", headers=server)).json()
    assert (listed["export"], listed["uses"], listed["state"]) == (report["export"], 2, "ready")
    assert file_of(gateway, report["export"]).exists()
    assert (await http.delete(f"/v1/exports/{'0' * 32}", headers=server)).status_code == 404
    assert (await http.delete(f"/v1/exports/{report['export']}", headers=server)).status_code == 204
    assert (await http.get(report["link"])).status_code == 404
    assert not file_of(gateway, report["export"]).exists()
    assert len(await acts(gateway, "gdpr.download")) == 2


async def test_nothing_else_is_a_link(gateway: Gateway, http: httpx.AsyncClient) -> None:
    """Every changed character, other tenants, other keys, other ends, paths: one answer to them all."""
    report = await export(gateway, GRANT)
    id, expires, signature = report["link"].rpartition("/")[2].split(".")
    links, later = gateway.office.links, int(expires) + 1
    forged = {
        f"{id}.{later}.{signature}",
        f"{id[:-1]}{'0' if id[-1] != '0' else '1'}.{expires}.{signature}",
        links.make("other", id, int(expires)),  # signed, and not of the tenant whose file it is
        links.make("shop", "f" * 32, int(expires)),  # signed, and no file
        links.make("shop", id, int(time.time()) - 1),  # signed, and over
        Links(b"another key").make("shop", id, int(expires)),
        f"{id}.{expires}.",
        f"{id}.{expires}",
        id,
        f"{id}.zip",
        f".{id}.zip.partial",
        f"%2e%2e%2f{id}.{expires}.{signature}",
        f"..%2Fshop%2F{id}.zip",
        f"{id}%00.{expires}.{signature}",
        f"{id}.{expires}.{signature}%0a",
        f"{id.upper()}.{expires}.{signature}",
        f"{id}.+{expires}.{signature}",
        "%2fetc%2fpasswd",
        "x" * 129,
    }
    whole = f"{id}.{expires}.{signature}"
    forged |= {
        f"{whole[:at]}{'A' if whole[at] != 'A' else 'B'}{whole[at + 1 :]}" for at in range(len(id) + 12, len(whole), 5)
    }
    for link in forged:
        answer = await http.get(f"/v1/exports/{link}")
        assert answer.status_code in (401, 404, 422), link  # 401: another path
        assert "PK" not in answer.text[:2]
    assert (await http.get(f"/v1/exports/{whole}")).status_code == 200
    [use] = [subject for _, subject in await acts(gateway, "gdpr.download") if subject == id]
    assert use == id


async def test_what_has_expired_is_refused_and_its_file_is_removed(gateway: Gateway, http: httpx.AsyncClient) -> None:
    report = await export(gateway, GRANT)
    kept = await export(gateway, GRANT)
    over = "UPDATE gdpr_export SET expires = now() - interval '1 second' WHERE id = %s"
    await gateway.database.execute(over, (report["export"],))
    assert (await http.get(report["link"])).status_code == 404
    await gateway.office.look()
    assert not file_of(gateway, report["export"]).exists()
    assert file_of(gateway, kept["export"]).exists()
    [row] = await gateway.database.fetch("SELECT state FROM gdpr_export WHERE id = %s", (report["export"],))
    assert row["state"] == "removed"


async def test_a_file_that_was_exchanged_for_a_link_is_not_followed(gateway: Gateway, http: httpx.AsyncClient) -> None:
    report = await export(gateway, GRANT)
    file = file_of(gateway, report["export"])
    file.unlink()
    file.symlink_to(gateway.data_dir.path / "gateway.id")
    assert (await http.get(report["link"])).status_code == 404


async def test_what_a_killed_gateway_left_is_removed(gateway: Gateway) -> None:
    office, folder = gateway.office, gateway.data_dir.path / "exports" / "shop"
    subject = await office.subject("shop", EMAIL, 0, [])
    await office.exports.begin("a" * 32, subject, "ada", "s", 3600)
    left = folder / f".{'a' * 32}.zip.partial"
    left.write_bytes(b"half")
    office.exports.writing.add("b" * 32)
    await office.exports.begin("b" * 32, subject, "ada", "s", 3600)
    (folder / f".{'b' * 32}.zip.partial").write_bytes(b"being written")
    assert await office.exports.tidy() == ["a" * 32]
    assert not left.exists()
    assert (folder / f".{'b' * 32}.zip.partial").exists()


async def test_nobody_but_the_gateways_user_reads_them(gateway: Gateway) -> None:
    root = gateway.data_dir.path / "exports"
    modes = {path.stat().st_mode & 0o077 for path in [*root.iterdir(), *root.rglob("*.zip")] if not path.is_symlink()}
    assert modes == {0}
