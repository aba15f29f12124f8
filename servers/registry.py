"""All tools by name, and what is made from all of them: the sandbox's index and the lists for direct calling."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

import servers

from .checking import closest
from .errors import ERRORS, ToolInputError, ToolNotFound
from .exports import function_name, mcp_tool
from .foreign.words import prose
from .rendering import annotation_of, pyi
from .tool import EFFECTS, OMITTED, Tool

INDEX_VERSION = 1

#: Characters of what a server says of itself.
LONGEST_DOCUMENT = 4_000

#: Packages beside the servers that are none.
LIBRARIES = frozenset({"finding", "foreign"})


class Collision(Exception):
    """Two tools claim one name."""


class Registry:
    """An immutable set of tools. `documents` gives each server's one-line description."""

    def __init__(self, tools: Iterable[Tool], documents: Mapping[str, str]) -> None:
        self._tools: dict[str, Tool] = {}
        self.documents = {server: prose(doc, LONGEST_DOCUMENT) for server, doc in documents.items()}
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

    def find(self, name: str) -> Tool | None:
        """The tool `server.name`, or None."""
        return self._tools.get(name)

    def of_server(self, server: str) -> tuple[Tool, ...]:
        return self._by_server.get(server, ())

    def pyi(self, server: str) -> str:
        """The server's stub as a readable module."""
        return pyi(self.documents.get(server, ""), self.of_server(server))

    def openai_tools(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Function definitions for direct tool calling, named by `function_name`."""
        chosen = self if names is None else [self.get(name) for name in names]
        return [
            {
                "type": "function",
                "function": {
                    "name": function_name(tool),
                    "description": tool.doc,
                    "parameters": tool.input_schema,
                },
            }
            for tool in chosen
        ]

    def mcp_tools(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """The tools as an MCP server lists them; names as in `openai_tools`. `structured` makes results for them."""
        return [mcp_tool(tool) for tool in (self if names is None else [self.get(name) for name in names])]

    def from_function_name(self, function: str) -> Tool:
        """The tool behind a function name of `openai_tools`.

        Raises:
            ToolNotFound
        """
        return self.get(self._by_function_name.get(function) or function.replace("__", ".", 1))

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
                        "tools": [entry_of(tool) for tool in self.of_server(server)],
                    }
                    for server, doc in self.documents.items()
                ],
            }
        )

    @cached_property
    def _by_function_name(self) -> dict[str, str]:
        return {function_name(tool): tool.qualified_name for tool in self}

    @cached_property
    def _by_server(self) -> dict[str, tuple[Tool, ...]]:
        found: dict[str, list[Tool]] = {}
        for tool in self:
            found.setdefault(tool.server, []).append(tool)
        return {server: tuple(tools) for server, tools in found.items()}

    @cached_property
    def _by_short_name(self) -> dict[str, str]:
        return {tool.name: tool.qualified_name for tool in self}

    def _closest(self, name: str) -> str | None:
        likely = closest(name, self._tools)
        if likely:
            return likely
        short = closest(name.rpartition(".")[2], self._by_short_name)
        return self._by_short_name[short] if short else None


def load_registry(folder: Path | None = None) -> Registry:
    """The tools of every `servers/<server>/tools.py`, or of the modules of a `tools` folder in its place.

    `folder`: one with further servers. They become `servers.<server>` like the others.

    Raises:
        Collision: one name, two tools or servers.
        FileNotFoundError: `folder` is none.
    """
    if folder is not None:
        _include(folder)
    tools: list[Tool] = []
    documents: dict[str, str] = {}
    for package in pkgutil.iter_modules(servers.__path__):
        if not package.ispkg or package.name in LIBRARIES:
            continue
        documents[package.name] = (importlib.import_module(f"servers.{package.name}").__doc__ or "").strip()
        own = {
            id(value): value
            for module in _tool_modules(package.name)
            for value in vars(module).values()
            if isinstance(value, Tool)
        }
        tools += sorted(own.values(), key=lambda tool: EFFECTS.index(tool.effect))
    return Registry(tools, documents)


def _include(own: Path) -> None:
    if not own.is_dir():
        raise FileNotFoundError(f"There is no folder {own} with tools.")
    folder = str(own.resolve())
    if folder in servers.__path__:
        return
    theirs = {found.name for found in pkgutil.iter_modules([folder]) if found.ispkg}
    for found in pkgutil.iter_modules(servers.__path__):
        if found.name in theirs:
            raise Collision(f"Both {folder} and the product have a server {found.name!r}: rename yours.")
    servers.__path__.append(folder)
    importlib.invalidate_caches()


def _tool_modules(server: str) -> Iterator[ModuleType]:
    module = importlib.import_module(f"servers.{server}.tools")
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield importlib.import_module(f"{module.__name__}.{found.name}")


def entry_of(tool: Tool) -> dict[str, Any]:
    """What a sandbox knows of one tool."""
    return {
        "name": tool.name,
        "signature": tool.signature,
        "doc": tool.shown_doc,
        "effect": tool.effect,
        "roles": list(tool.roles),
        "parameters": [
            {"name": p.name, "required": p.required, "annotation": annotation_of(p.annotation)}
            | ({} if p.required or p.default is OMITTED else {"default": p.default})
            | ({"description": p.description} if p.description else {})
            for p in tool.parameters
        ],
        "returns": annotation_of(tool.returns),
        "streams": tool.streams,
    }


def _owner(tool: Tool) -> str:
    if tool.foreign is not None:
        return f"the tool {tool.foreign.wire_name!r} of the server {tool.server}"
    return f"{tool.implementation.__module__}.{tool.implementation.__qualname__}"
