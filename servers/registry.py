"""All tools by name, and what is made from all of them: the sandbox's index and the lists for direct calling."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec

import servers

from .checking import closest
from .errors import ERRORS, ToolInputError, ToolNotFound
from .rendering import annotation_of, pyi
from .tool import EFFECTS, Tool

INDEX_VERSION = 1


class Collision(Exception):
    """Two tools claim one name."""


class Registry:
    """An immutable set of tools. `documents` gives each server's one-line description."""

    def __init__(self, tools: Iterable[Tool], documents: Mapping[str, str]) -> None:
        self._tools: dict[str, Tool] = {}
        self.documents = dict(documents)
        for tool in tools:
            other = self._tools.setdefault(tool.qualified_name, tool)
            if other is not tool:
                raise Collision(f"{tool.qualified_name} is defined twice: by {_owner(other)} and by {_owner(tool)}")

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def get(self, name: str) -> Tool:
        """The tool `server.name`.

        Raises:
            ToolNotFound: with the likely name.
        """
        found = self._tools.get(name)
        if found is None:
            likely = self._closest(name)
            advice = f"Did you mean {likely}?" if likely else f"Servers: {', '.join(self.documents)}."
            raise ToolNotFound(f"There is no tool {name[:80]!r}. {advice}", tool=name[:80])
        return found

    def resolve(self, name: str, args: Mapping[str, object]) -> tuple[Tool, dict[str, Any]]:
        """The tool that a call means, and its validated arguments: a dispatcher's call is its operation's call.

        Raises:
            ToolNotFound, ToolInputError
        """
        tool = self.get(name)
        checked = tool.validate(args)
        if not tool.operations:
            return tool, checked
        target = tool.operations[checked["operation"]]
        try:
            return target, target.validate(checked["arguments"])
        except ToolInputError as error:
            raise ToolInputError(f"arguments of {error.message}", tool=name, data=error.data) from None

    def of_server(self, server: str) -> tuple[Tool, ...]:
        return tuple(tool for tool in self if tool.server == server)

    def pyi(self, server: str) -> str:
        """The server's stub as a readable module."""
        return pyi(self.documents.get(server, ""), self.of_server(server))

    def openai_tools(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Function definitions for direct tool calling; names are `server__tool`, as function names have no dot."""
        chosen = self if names is None else [self.get(name) for name in names]
        return [
            {
                "type": "function",
                "function": {
                    "name": f"{tool.server}__{tool.name}",
                    "description": tool.doc,
                    "parameters": tool.input_schema,
                },
            }
            for tool in chosen
        ]

    def from_function_name(self, function: str) -> Tool:
        """The tool behind a function name of `openai_tools`.

        Raises:
            ToolNotFound
        """
        return self.get(function.replace("__", ".", 1))

    def index(self) -> bytes:
        """What a sandbox knows of the tools, as JSON: enough to import, read and search them, and nothing secret."""
        return msgspec.json.encode(
            {
                "version": INDEX_VERSION,
                "errors": [{"name": e.__name__, "parent": e.__mro__[1].__name__, "doc": e.__doc__} for e in ERRORS],
                "servers": [
                    {
                        "name": server,
                        "doc": doc,
                        "pyi": self.pyi(server),
                        "tools": [_entry(tool) for tool in self.of_server(server)],
                    }
                    for server, doc in self.documents.items()
                ],
            }
        )

    @cached_property
    def _by_short_name(self) -> dict[str, str]:
        return {tool.name: tool.qualified_name for tool in self}

    def _closest(self, name: str) -> str | None:
        likely = closest(name, self._tools)
        if likely:
            return likely
        short = closest(name.rpartition(".")[2], self._by_short_name)
        return self._by_short_name[short] if short else None


def load_registry() -> Registry:
    """The tools of every `servers/<server>/tools.py`.

    Raises:
        Collision: one name, two tools.
    """
    tools: list[Tool] = []
    documents: dict[str, str] = {}
    for package in pkgutil.iter_modules(servers.__path__):
        if not package.ispkg:
            continue
        documents[package.name] = (importlib.import_module(f"servers.{package.name}").__doc__ or "").strip()
        module = importlib.import_module(f"servers.{package.name}.tools")
        own = [value for value in vars(module).values() if isinstance(value, Tool)]
        tools += sorted(own, key=lambda tool: EFFECTS.index(tool.effect))
    return Registry(tools, documents)


def _entry(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "signature": tool.signature,
        "doc": tool.doc,
        "effect": tool.effect,
        "parameters": [
            {"name": p.name, "required": p.required, "annotation": annotation_of(p.annotation)}
            | ({} if p.required else {"default": p.default})
            | ({"description": p.description} if p.description else {})
            for p in tool.parameters
        ],
        "returns": annotation_of(tool.returns),
    }


def _owner(tool: Tool) -> str:
    return f"{tool.implementation.__module__}.{tool.implementation.__qualname__}"
