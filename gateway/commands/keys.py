"""`omniops keys`: API keys, through a running gateway, or straight in its database where none runs."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import client_for
from gateway.commands.credentials import person
from gateway.commands.options import AnyTenantOption, DataDirOption, JsonOption, TokenOption, UrlOption
from gateway.data_dir import DataDir
from gateway.identity.audit import ORIGIN, Origin
from gateway.identity.keys import KeyProblem, KeyRows, NewKey
from gateway.settings import Settings, load_settings
from omniops_client import Client

app = typer.Typer(
    help="API keys, through a running gateway; where none runs, in its database itself.", no_args_is_help=True
)

OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Work on the database, whether or not a gateway runs. As its operator.")
]
IdArgument = Annotated[str, typer.Argument(help="The part between omk_ and the secret.", metavar="ID")]

T = TypeVar("T")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command("create")
def create_key(
    role: Annotated[Literal["agent", "analyst", "ops", "admin"], typer.Option(help="What it may do.")],
    label: Annotated[str, typer.Option(help="Whose it is, what for.")],
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", help="The only tenant that it reaches.", show_default="all")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d, 12h, 30m from now.", show_default="never")
    ] = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Make a key, and print it: it is shown this once."""
    seconds = None if expires is None else _seconds(expires)
    settings = load_settings(data_dir=data_dir)
    if _through_gateway(settings, url, offline):
        wanted = {"role": role, "label": label, "tenant": tenant, "expires_s": seconds, "by": person()}
        with _client(data_dir, url, token) as client:
            made = client.post("/v1/keys", wanted)
    else:
        _check_tenant(settings, tenant)
        end = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        made = _told(
            _offline(settings, lambda keys: keys.create(role=role, tenant=tenant, label=label, by=_who(), expires=end))
        )
    _show_new(made, as_json)


@app.command("list")
def list_keys(
    tenant: AnyTenantOption = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List keys, without their secrets; last those that were revoked."""
    settings = load_settings(data_dir=data_dir)
    if _through_gateway(settings, url, offline):
        with _client(data_dir, url, token) as client:
            found = client.get("/v1/keys", {"tenant": tenant} if tenant else None)["keys"]
    else:
        found = [_plain(asdict(key)) for key in _offline(settings, lambda keys: keys.list(tenant))]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("id", "tenant", "role", "label", "state", "created", "by", "last used"):
        table.add_column(title)
    for key in found:
        shown = (key["label"], _state(key), key["created"][:10], key["created_by"], (key["last_used"] or "never")[:16])
        table.add_row(key["id"], key["tenant"] or "(all)", key["role"], *(escape(text) for text in shown))
    Console().print(table)


@app.command("rotate")
def rotate_key(
    id: IdArgument,
    overlap: Annotated[
        str | None,
        typer.Option(help="How long the secret of before counts: 0s, 12h, 7d.", show_default="identity.overlap_s"),
    ] = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Give a key another secret, and print it. The one before counts for a while yet."""
    seconds = None if overlap is None else _seconds(overlap)
    settings = load_settings(data_dir=data_dir)
    if _through_gateway(settings, url, offline):
        with _client(data_dir, url, token) as client:
            asked = {"by": person(), **({} if seconds is None else {"overlap_s": str(seconds)})}
            made = client.post(f"/v1/keys/{id}/rotate", params=asked)
    else:
        overlap_s = settings.identity.overlap_s if seconds is None else seconds
        made = _told(_offline(settings, lambda keys: keys.rotate(id, tenant=None, by=_who(), overlap_s=overlap_s)))
    _show_new(made, as_json)


@app.command("revoke")
def revoke_key(
    id: IdArgument,
    offline: OfflineOption = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """End a key for good, at once, at every gateway."""
    settings = load_settings(data_dir=data_dir)
    if _through_gateway(settings, url, offline):
        with _client(data_dir, url, token) as client:
            label = client.delete(f"/v1/keys/{id}", {"by": person()})["label"]
    else:
        label = _offline(settings, lambda keys: keys.revoke(id, tenant=None, by=_who())).label
    print(f"{id} ({label}) is revoked.")


def _through_gateway(settings: Settings, url: str | None, offline: bool) -> bool:
    if offline:
        return False
    return url is not None or settings.client.url is not None or DataDir(settings.data_dir).running() is not None


def _client(data_dir: Path | None, url: str | None, token: str | None) -> Client:
    return client_for(data_dir, url, token, silence_s=60)


def _offline(settings: Settings, work: Callable[[KeyRows], Awaitable[T]]) -> T:
    async def run() -> T:
        ORIGIN.set(Origin("operator", "command line"))
        async with _database(settings) as keys:
            return await work(keys)

    try:
        return asyncio.run(run())
    except KeyProblem as error:
        _stop(str(error))


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[KeyRows]:
    """The gateway's, which may run beside us."""
    from contextlib import AsyncExitStack

    from gateway.data_dir import remove_runtime_dir, runtime_dir
    from gateway.db import Database
    from gateway.starting import open_database_url

    async with AsyncExitStack() as stack:
        folder = settings.data_dir.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sockets = runtime_dir(settings.runtime_dir, folder)
        stack.callback(remove_runtime_dir, sockets)
        database = Database(await open_database_url(stack, settings, folder, sockets), settings.database)
        await database.open()
        stack.push_async_callback(database.close)
        yield KeyRows(database)


def _check_tenant(settings: Settings, tenant: str | None) -> None:
    if tenant is not None and tenant not in settings.tenants:
        known = ", ".join(sorted(settings.tenants)) or "none"
        _stop(f"There is no tenant {tenant!r}. Configured: {known}.")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,7})([smhd])", text)
    if found is None:
        _stop(f"{text!r} is no time. Wanted: a number and s, m, h or d, such as 90d.")
    return float(int(found[1]) * _UNITS[found[2]])


def _told(made: NewKey) -> dict[str, Any]:
    return _plain({**asdict(made.key), "key": made.text})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _show_new(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(made, indent=2))
        return
    print(made["key"])
    reach = f"tenant {made['tenant']}" if made["tenant"] else "all tenants"
    until = f"until {made['expires'][:16]} UTC" if made["expires"] else "without end"
    told = f"Role {made['role']}, {reach}, {until}. It is shown this once. To end it: omniops keys revoke {made['id']}"
    print(told, file=sys.stderr)  # so that `omniops keys create ... > file` keeps the key alone


def _state(key: dict[str, Any]) -> str:
    if key["revoked"]:
        return f"revoked {key['revoked'][:10]}"
    if key["expires"]:
        ended = datetime.fromisoformat(key["expires"]) <= datetime.now(UTC)
        return f"{'expired' if ended else 'until'} {key['expires'][:10]}"
    return "counts"


def _who() -> str:
    name = person()
    return f"operator ({name})" if name else "operator"


def _stop(message: str) -> NoReturn:
    print(f"omniops: {message}", file=sys.stderr)
    raise typer.Exit(1)
