"""The index of tools as the sandbox reads it: names, parameters and words, no code. Made by `servers.registry`."""

from __future__ import annotations

import ast
import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypedDict

import msgspec

_TYPED_DICT = re.compile(r"^class (\w+)\(TypedDict\):\n(?:(?: {4}.*)?\n)+", re.MULTILINE)


#: Characters of one description.
MAX_TEXT = 20_000


class Shown(str):
    """An annotation that prints as it is written, without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


class Parameter(msgspec.Struct, frozen=True):
    name: str
    required: bool
    annotation: str
    default: Any = None
    description: str = ""


class Tool(msgspec.Struct, frozen=True):
    name: str
    signature: str
    doc: str
    effect: str
    parameters: tuple[Parameter, ...]
    returns: str

    @property
    def summary(self) -> str:
        return readable(self.doc).partition("\n")[0]

    @property
    def text(self) -> str:
        """Effect, what it does, its parameters: the docstring."""
        described = [f"{p.name}: {p.description}" for p in self.parameters if p.description]
        return readable("\n".join([f"[{self.effect}] {self.doc.strip()}", *([""] if described else []), *described]))


class ErrorClass(msgspec.Struct, frozen=True):
    name: str
    parent: str
    doc: str | None = None


class Server(msgspec.Struct, frozen=True, dict=True):
    name: str
    doc: str
    pyi: str
    tools: tuple[Tool, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Tool]:
        return {tool.name: tool for tool in self.tools}

    @cached_property
    def type_names(self) -> tuple[str, ...]:
        """Names of the types that the stub defines."""
        return tuple(match[1] for match in _TYPED_DICT.finditer(self.pyi))

    def typed_dict(self, name: str) -> type:
        """A type of the stub for annotations and `help()`. Values of it are plain dicts; the text is never executed."""
        source = next(match[0] for match in _TYPED_DICT.finditer(self.pyi) if match[1] == name)
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.ClassDef)
        fields = {
            item.target.id: Shown(ast.unparse(item.annotation))
            for item in definition.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        made: type = TypedDict(name, dict.fromkeys(fields, Any), total=False)  # type: ignore[misc]
        made.__annotations__ = fields
        made.__doc__ = ast.get_docstring(definition)
        made.__module__ = f"servers.{self.name}"
        return made


class Index(msgspec.Struct, frozen=True, dict=True):
    version: int
    errors: tuple[ErrorClass, ...]
    servers: tuple[Server, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Server]:
        return {server.name: server for server in self.servers}

    def tool(self, qualified_name: str) -> Tool | None:
        server, _, name = qualified_name.partition(".")
        return self.by_name[server].by_name.get(name) if server in self.by_name else None


class Misuse(msgspec.Struct, frozen=True):
    """Why a call cannot be meant as it is written."""

    message: str
    data: dict[str, Any] = {}


def decode(index: bytes) -> Index:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(index, type=Index)


def readable(text: str) -> str:
    """Without control and direction characters, and not endless: descriptions may be other people's words."""
    kept = (c for c in text[:MAX_TEXT] if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    return "".join(kept)


def misuse(tool: Tool, positional: Sequence[object], keywords: Mapping[str, object]) -> Misuse | None:
    """What is wrong with the names of a call's arguments, in the broker's words; None when nothing is."""
    names = [p.name for p in tool.parameters]
    required = [p.name for p in tool.parameters if p.required]
    if positional:
        return _positional(tool, positional, keywords)
    unknown = [key for key in keywords if key not in names]
    missing = [name for name in required if name not in keywords]
    if not (unknown or missing):
        return None
    problems = [f"unknown argument {_quote(key)}" for key in unknown] + [f"missing argument {key!r}" for key in missing]
    likely = _suggestion(unknown, missing, names)
    return Misuse(
        f"{tool.name}: {'; '.join(problems)}. {_valid(tool)}{' ' + likely if likely else ''}",
        {"valid": names, "unknown": unknown, "missing": missing, "invalid": []},
    )


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` was probably meant to be, or None."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def _positional(tool: Tool, positional: Sequence[object], keywords: Mapping[str, object]) -> Misuse:
    """Names the keywords that the values were probably meant for: those not given, required ones first."""
    names = [p.name for p in tool.parameters]
    free = sorted((p for p in tool.parameters if p.name not in keywords), key=lambda p: not p.required)
    meant = [f"{p.name}={_quote(value)}" for p, value in zip(free, positional, strict=False)]
    given = [f"{name}={_quote(value)}" for name, value in keywords.items()]
    call = f"{tool.name}({', '.join(meant + given)})"
    return Misuse(
        f"{tool.name}: arguments are given by keyword. {_valid(tool)} Write {call}.",
        {"valid": names, "unknown": [], "missing": [], "invalid": []},
    )


def _suggestion(unknown: Sequence[str], missing: Sequence[str], names: Sequence[str]) -> str:
    if len(unknown) == len(missing) == 1:
        return f"Did you mean {missing[0]}?"
    likely = [match for key in unknown if (match := closest(key, missing or names))]
    return f"Did you mean {', '.join(dict.fromkeys(likely))}?" if likely else ""


def _valid(tool: Tool) -> str:
    listed = ", ".join(p.name + ("*" if p.required else "") for p in tool.parameters)
    return f"Valid: {listed} (* required)." if listed else "Valid: none."


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
