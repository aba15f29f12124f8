"""Definitions as they were first seen, and what people decided about them: in Postgres, for every gateway.

A tool that nobody has classified is critical and for operators alone. What a server hints can only raise that: a hint
is the server's own word. A definition that has changed is not called, neither the old one nor the new, until a person
has accepted it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from gateway.db import Database
from gateway.identity.audit import note
from servers.foreign.record import Definition
from servers.foreign.words import one_line
from servers.tool import EFFECTS, OPERATOR, Effect, Role

_REVISED = "UPDATE foreign_revision SET revision = revision + 1"


class Stale(Exception):
    """The definition is another one than was looked at."""


@dataclass(frozen=True)
class ToolKey:
    """A foreign tool: whose configuration, which server, which tool by its server's name."""

    owner: str
    server: str
    name: str


@dataclass(frozen=True)
class Pin:
    """A tool's definition as it may be called, and as its server has it now where that is another one."""

    key: ToolKey
    definition: Definition
    offered: Definition | None
    listed: bool
    seen: datetime
    changed: datetime


@dataclass(frozen=True)
class Ruling:
    """What counts for a tenant. `by`: who decided; "" where nobody has."""

    effect: Effect = "critical"
    roles: tuple[Role, ...] = OPERATOR
    #: May be sent again after a crash: its server says so, and a person agreed.
    idempotent: bool = False
    by: str = ""
    at: datetime | None = None
    #: The effect that was decided, where hints have raised it.
    decided: Effect | None = None


class Book:
    """All pins and decisions in memory, written through. `load` first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pins: dict[ToolKey, Pin] = {}
        self._decisions: dict[tuple[str, ToolKey], dict[str, Any]] = {}
        self._revision = -1

    async def load(self) -> bool:
        """Read again if something was written since. True if so."""
        found = await self._database.fetch_one("SELECT revision FROM foreign_revision")
        revision: int = found["revision"] if found else 0
        if revision == self._revision:
            return False
        rows = await self._database.fetch("SELECT * FROM foreign_tool ORDER BY owner, server, name")
        decisions = await self._database.fetch(
            "SELECT DISTINCT ON (tenant, owner, server, name) * FROM foreign_decision WHERE action = 'classify'"
            " ORDER BY tenant, owner, server, name, id DESC"
        )
        self._pins = {pin.key: pin for pin in map(_pin, rows)}
        self._decisions = {(row["tenant"], _key(row)): row for row in decisions}
        self._revision = revision
        return True

    @property
    def tenants(self) -> set[str]:
        """Those for whom something was decided that is not for all."""
        return {tenant for tenant, _ in self._decisions}

    def pin(self, key: ToolKey) -> Pin | None:
        return self._pins.get(key)

    def of_server(self, owner: str, server: str) -> list[Pin]:
        return [pin for pin in self._pins.values() if (pin.key.owner, pin.key.server) == (owner, server)]

    def ruling(self, tenant: str, pin: Pin) -> Ruling:
        """The tenant's own decision, else the one for all, else the default; raised by the definition's hints."""
        row = self._decisions.get((tenant, pin.key)) or self._decisions.get(("", pin.key))
        least = hinted(pin.definition)
        if row is None:
            return Ruling()
        decided: Effect = row["effect"]
        effect = max(decided, least, key=EFFECTS.index)
        idempotent = row["idempotent"] and pin.definition.annotations.get("idempotentHint") is True
        return Ruling(effect, tuple(row["roles"]), idempotent, row["principal"], row["at"], decided)

    async def listed(self, owner: str, server: str, definitions: Iterable[Definition]) -> None:
        """Note what a server offers: new tools, changed ones, ones that are gone."""
        offered = {each.name: each for each in definitions}
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 9))", (f"{owner}\n{server}",))
            cursor = await connection.execute(
                "SELECT name, digest, offered_digest, listed FROM foreign_tool WHERE owner = %s AND server = %s",
                (owner, server),
            )
            known = {row["name"]: row for row in await cursor.fetchall()}
            changed = False
            for definition in offered.values():
                row = known.get(definition.name)
                whole = (owner, server, definition.name, _text(definition), definition.digest)
                if row is None:
                    changed = True
                    await connection.execute(
                        "INSERT INTO foreign_tool (owner, server, name, definition, digest, listed)"
                        " VALUES (%s, %s, %s, %s, %s, true)",
                        whole,
                    )
                    continue
                other = None if row["digest"] == definition.digest else definition
                if not row["listed"] or row["offered_digest"] != (other.digest if other else None):
                    changed = True
                    await connection.execute(
                        "UPDATE foreign_tool SET offered = %s, offered_digest = %s, listed = true,"
                        " changed = clock_timestamp() WHERE owner = %s AND server = %s AND name = %s",
                        (_text(other) if other else None, other.digest if other else None, *whole[:3]),
                    )
            gone = [name for name, row in known.items() if row["listed"] and name not in offered]
            if gone:
                await connection.execute(
                    "UPDATE foreign_tool SET listed = false, changed = clock_timestamp()"
                    " WHERE owner = %s AND server = %s AND name = ANY(%s)",
                    (owner, server, gone),
                )
            if changed or gone:
                await connection.execute(_REVISED)
        await self.load()

    async def classify(
        self, pin: Pin, *, tenant: str, effect: Effect, roles: tuple[Role, ...], idempotent: bool, principal: str
    ) -> None:
        """Decide what a tool does and who may call it, for one tenant or ("") for all."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO foreign_decision (principal, tenant, owner, server, name, action, digest, effect, roles,"
                " idempotent) VALUES (%s, %s, %s, %s, %s, 'classify', %s, %s, %s, %s)",
                (principal, tenant, *_parts(pin.key), pin.definition.digest, effect, list(roles), idempotent),
            )
            said = f"{effect} for {', '.join(roles) or 'nobody'}{', idempotent' if idempotent else ''}"
            await note(connection, principal, tenant, "tool.classify", f"{_shown(pin.key)}: {said}")
            await connection.execute(_REVISED)
        await self.load()

    async def accept(self, pin: Pin, digest: str, principal: str) -> None:
        """Let the definition count that the server has now, if it is still the one that was looked at.

        Raises:
            Stale
        """
        async with self._database.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "UPDATE foreign_tool SET definition = offered, digest = offered_digest, offered = NULL,"
                " offered_digest = NULL, changed = clock_timestamp()"
                " WHERE owner = %s AND server = %s AND name = %s AND offered_digest = %s",
                (*_parts(pin.key), digest),
            )
            if cursor.rowcount == 0:
                raise Stale(f"{pin.key.server}.{pin.key.name} has changed since you looked. Look again.")
            await connection.execute(
                "INSERT INTO foreign_decision (principal, tenant, owner, server, name, action, digest)"
                " VALUES (%s, %s, %s, %s, %s, 'accept', %s)",
                (principal, pin.key.owner, *_parts(pin.key), digest),
            )
            await note(connection, principal, pin.key.owner, "tool.accept", f"{_shown(pin.key)}: {digest[:12]}")
            await connection.execute(_REVISED)
        await self.load()


def hinted(definition: Definition) -> Effect:
    """The least that a definition's own hints make of it. "read" where they say nothing, or that it is harmless."""
    hints = definition.annotations
    if hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True:
        return "critical"
    return "write" if hints.get("readOnlyHint") is False else "read"


def _shown(key: ToolKey) -> str:
    return f"{key.server}.{one_line(key.name, 80)}"


def _parts(key: ToolKey) -> tuple[str, str, str]:
    return key.owner, key.server, key.name


def _key(row: dict[str, Any]) -> ToolKey:
    return ToolKey(row["owner"], row["server"], row["name"])


def _text(definition: Definition) -> str:
    return json.dumps(
        {
            "name": definition.name,
            "description": definition.description,
            "input_schema": definition.input_schema,
            "output_schema": definition.output_schema,
            "annotations": dict(definition.annotations),
        }
    )


def _pin(row: dict[str, Any]) -> Pin:
    return Pin(
        key=_key(row),
        definition=msgspec.convert(row["definition"], Definition),
        offered=None if row["offered"] is None else msgspec.convert(row["offered"], Definition),
        listed=row["listed"],
        seen=row["seen"],
        changed=row["changed"],
    )
