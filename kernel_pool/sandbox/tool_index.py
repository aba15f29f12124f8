"""The index of tools as the sandbox reads it: names, parameters and words, no code. Made by `servers.registry`."""

from __future__ import annotations

import ast
import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypedDict

import msgspec

#: A type of a stub: a class, or, where keys are no names, a call.
_TYPED_DICT = re.compile(
    r"^(?:class (\w+)\(TypedDict\):\n(?:(?: {4}.*)?\n)+|(\w+) = TypedDict\(\n(?: {4}.*\n)+\)$)", re.MULTILINE
)


#: What `servers` itself offers beside the servers.
PACKAGE_MODULES = ("errors", "approvals")
PACKAGE_FUNCTIONS = ("search", "describe", "folder", "aio", "parallel")

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
    #: UNSET where it is required, and where only the tool's server knows it.
    default: Any = msgspec.UNSET
    description: str = ""


class Tool(msgspec.Struct, frozen=True):
    name: str
    signature: str
    doc: str
    effect: str
    parameters: tuple[Parameter, ...]
    returns: str
    #: The result comes in parts.
    streams: bool = False

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

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    def tool(self, name: str) -> Tool | None:
        return self.by_name.get(name)

    @cached_property
    def type_names(self) -> tuple[str, ...]:
        """Names of the types that the stub defines."""
        return tuple(match[1] or match[2] for match in _TYPED_DICT.finditer(self.pyi))

    def typed_dict(self, name: str) -> type:
        """A type of the stub for annotations and `help()`. Values of it are plain dicts; the text is never executed."""
        source = next(match[0] for match in _TYPED_DICT.finditer(self.pyi) if name in match.groups())
        definition = ast.parse(source).body[0]
        fields = {key: Shown(ast.unparse(annotation)) for key, annotation in _fields(definition)}
        made: type = TypedDict(name, dict.fromkeys(fields, Any), total=False)  # type: ignore[misc]
        made.__annotations__ = fields
        made.__doc__ = ast.get_docstring(definition) if isinstance(definition, ast.ClassDef) else None
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


def _fields(definition: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Keys and annotations of a TypedDict, however it is written."""
    if isinstance(definition, ast.ClassDef):
        for item in definition.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                yield item.target.id, item.annotation
    elif isinstance(definition, ast.Assign) and isinstance(definition.value, ast.Call):
        keys = definition.value.args[1]
        if isinstance(keys, ast.Dict):
            for key, annotation in zip(keys.keys, keys.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield str(key.value), annotation


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
