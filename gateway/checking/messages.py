"""What goes between the gateway and its checkers: msgpack, each message after its length (4 bytes, little-endian)."""

from __future__ import annotations

import struct
from typing import Any, Literal

import msgspec

LENGTH = struct.Struct("<I")


class Earlier(msgspec.Struct, frozen=True):
    """A cell that the session ran before."""

    code: str
    #: It ran to its end, so all that it binds is bound.
    ok: bool
    #: Names whose values changed while it ran, whether or not it binds them itself.
    changed: tuple[str, ...] = ()


class Question(msgspec.Struct, frozen=True):
    """A cell to be looked at. `root`: the folder of the stubs that it may import."""

    root: str
    code: str
    earlier: tuple[Earlier, ...] = ()


class Place(msgspec.Struct, frozen=True):
    """Where something stands in the cell."""

    line: int  # from 1
    column: int = 0  # from 0, bytes
    #: What goes wrong there may be meant to: it stands in a `try` that catches, or the like.
    guarded: bool = False
    #: In a function's body, which runs later or never.
    deferred: bool = False


class Call(msgspec.Struct, frozen=True):
    """A call of a tool, `server.name`."""

    tool: str
    place: Place
    source: str
    #: Keyword arguments whose values stand in the cell, and the names of the others.
    literal: dict[str, Any] = {}
    other: tuple[str, ...] = ()
    #: Positional arguments, as they are written.
    positional: tuple[str, ...] = ()
    #: `*` or `**` stands for arguments that nobody sees here.
    unpacked: bool = False
    looped: bool = False


class Import(msgspec.Struct, frozen=True):
    """`from servers.<server> import <name>`, or a use of it as `module.<name>`. "": the server itself."""

    server: str
    name: str
    place: Place
    source: str


class Diagnosis(msgspec.Struct, frozen=True):
    """What the type checker said of a place."""

    code: str
    message: str
    place: Place
    source: str
    severity: Literal["error", "warning"] = "error"
    #: Operands, or what is subscripted: source and type.
    operands: tuple[tuple[str, str], ...] = ()
    #: It is assigned or deleted there, not read.
    stored: bool = False
    #: The tool that a call does not fit, and the argument by which it does not.
    tool: str = ""
    argument: str = ""


class Advice(msgspec.Struct, frozen=True):
    rule: str
    place: Place
    source: str
    message: str


class Reading(msgspec.Struct, frozen=True):
    """All that a checker found in a cell; the gateway makes findings of it."""

    #: (line, column, message) of the syntax error that keeps the cell from running.
    syntax: tuple[int, str, str] | None = None
    calls: tuple[Call, ...] = ()
    imports: tuple[Import, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    advice: tuple[Advice, ...] = ()
    #: Keys that this cell or an earlier one gives to dicts.
    keys: tuple[str, ...] = ()
    #: Names that earlier cells gave a type.
    typed: tuple[str, ...] = ()
    #: Names that earlier cells bound.
    bound: tuple[str, ...] = ()
    #: Servers whose tools the session may hold; None for all.
    servers: tuple[str, ...] | None = None
    #: Names that lead to tools: what was imported of them, and functions that use it.
    reach: tuple[str, ...] = ()
    #: Names may come to be in ways that are not seen: exec, magics, `from x import *`.
    opaque: bool = False
    #: Calls may give handles in place of results: the session collects writes for approval.
    handles: bool = False
    #: Why types were not checked, else "".
    unchecked: str = ""


def pack(message: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body
