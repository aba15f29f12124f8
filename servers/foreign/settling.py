"""The tools of one server beside one another: equal types shared, unequal ones told apart, collisions named."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from servers.tool import Tool

from .names import type_name
from .shapes import SHAPES, Record, renamed, renamed_record
from .words import one_line


@dataclass(frozen=True)
class Settled:
    tools: tuple[Tool, ...]
    #: Tools that were left out and why, one sentence each.
    problems: tuple[str, ...]


def settle(tools: Iterable[Tool]) -> Settled:
    """Make foreign tools of one server fit into one module.

    Two that become one name are both left out, as no one could say which of them is meant.
    """
    owners: dict[str, list[Tool]] = {}
    for tool in tools:
        owners.setdefault(tool.name, []).append(tool)
    problems = []
    for name, several in owners.items():
        if len(several) > 1:
            shown = " and ".join(repr(one_line(tool.foreign.wire_name, 80)) for tool in several if tool.foreign)
            problems.append(f"The tools {shown} of the server {several[0].server} all become {name}: left out.")
    known: dict[str, Record] = {}
    alone = [several[0] for several in owners.values() if len(several) == 1]
    return Settled(tuple(_settled(tool, known, owners) for tool in alone), tuple(problems))


def _settled(tool: Tool, known: dict[str, Record], tool_names: Container[str]) -> Tool:
    if tool.foreign is None or not tool.foreign.types:
        return tool
    records = {record.name: record for record in tool.foreign.types}
    renames = unify(known, records, tool.name, tool_names)
    if not renames:
        return tool
    return with_renamed_types(tool, renames)


def with_renamed_types(tool: Tool, renames: Mapping[str, str]) -> Tool:
    def new(name: str) -> str:
        return renames.get(name, name)

    def shape(annotation: object) -> object:
        return renamed(annotation, new) if isinstance(annotation, SHAPES) else annotation

    assert tool.foreign is not None
    types = tuple(renamed_record(record, new) for record in tool.foreign.types)
    return replace(
        tool,
        parameters=tuple(replace(p, annotation=shape(p.annotation)) for p in tool.parameters),
        returns=shape(tool.returns),
        foreign=replace(tool.foreign, types=types),
    )


def unify(
    known: dict[str, Record], records: Mapping[str, Record], prefix: str, reserved: Container[str] = ()
) -> dict[str, str]:
    """Add `records` to `known`; the new names of those whose name means something else there already."""
    other = {name for name, record in records.items() if name in reserved or known.get(name, record) != record}
    _spread(other, records, known)
    renames: dict[str, str] = {}
    taken = {*known, *records}
    for name in records:
        if name in other:
            renames[name] = type_name(f"{prefix} {name}", _Either(taken, reserved))
            taken.add(renames[name])
    for record in records.values():
        renamed_one = renamed_record(record, lambda old: renames.get(old, old)) if renames else record
        known.setdefault(renamed_one.name, renamed_one)
    return renames


def _spread(other: set[str], records: Mapping[str, Record], known: Mapping[str, Record]) -> None:
    """What leads to a type that is another is itself another, where its name is known."""
    users: dict[str, set[str]] = {}
    for name, record in records.items():
        for used in record.uses:
            users.setdefault(used, set()).add(name)
    if not other:
        return
    waiting = list(other)
    while waiting:
        for user in users.get(waiting.pop(), ()):
            if user in known and user not in other:
                other.add(user)
                waiting.append(user)


@dataclass(frozen=True)
class _Either:
    one: Container[str]
    other: Container[str]

    def __contains__(self, name: object) -> bool:
        return name in self.one or name in self.other
