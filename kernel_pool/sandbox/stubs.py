"""Tools as modules: `from servers.woocommerce import lookup_order`, served from the index.

A module holds no logic and no secret: a name that is asked for becomes a function whose one statement is a call to the
broker. Nothing is made before it is asked for, so importing costs the same for ten tools and for ten thousand.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from .client import BrokerClient, CallFailed
from .tool_index import ErrorClass, Index, Parameter, Server, Shown, Tool, closest, decode, misuse, readable
from .tracebacks import render, with_short_traceback

PACKAGE = "servers"
ERRORS = f"{PACKAGE}.errors"


def install(index_path: str, broker_path: str) -> None:
    """Make `servers` importable. Reads the index; connects to nothing before the first call, so a fork may follow."""
    index = decode(Path(index_path).read_bytes())
    sys.meta_path.insert(0, ToolFinder(index, BrokerClient(broker_path)))


class ToolFinder:
    """Finder and loader of `servers`, `servers.errors` and `servers.<server>`."""

    def __init__(self, index: Index, client: BrokerClient) -> None:
        self._index = index
        self._client = client
        self._errors = _make_errors(index.errors)
        for server in index.servers:
            _ = server.by_name  # made once before the fork, not by every kernel's first import

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raises ImportError, with the likely name, for what `servers` does not have."""
        package, _, rest = name.partition(".")
        if package != PACKAGE:
            return None
        server, _, attribute = rest.partition(".")
        if attribute:
            raise with_short_traceback(ImportError(self._no_attribute(server, attribute), name=name))
        if rest and name != ERRORS and rest not in self._index.by_name:
            known = ", ".join(self._index.by_name)
            message = f"There is no {name}.{_did_you_mean(rest, self._index.by_name)} Servers: {known}."
            raise with_short_traceback(ModuleNotFoundError(message, name=name))
        # Servers count as packages only so that a wrong name in `from servers.x import y` comes here.
        return ModuleSpec(name, self, is_package=name != ERRORS)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name == PACKAGE:
            self._fill_package(module)
        elif name == ERRORS:
            module.__doc__ = "What tools raise; ToolError is the base of all."
            vars(module).update(self._errors, __all__=list(self._errors))
        else:
            self._fill_server(module, self._index.by_name[name.rpartition(".")[2]])

    def _fill_package(self, module: ModuleType) -> None:
        index = self._index
        lines = [f"{PACKAGE}.{server.name}: {readable(server.doc)}" for server in index.servers]
        module.__doc__ = "\n".join(["Tools, by server:", "", *lines])

        def load(name: str) -> ModuleType:
            if name in index.by_name or name == "errors":
                return importlib.import_module(f"{PACKAGE}.{name}")
            message = f"There is no {PACKAGE}.{name}.{_did_you_mean(name, index.by_name)}"
            raise with_short_traceback(AttributeError(message))

        def search(query: str, limit: int = 20) -> None:
            """Print the tools whose names and descriptions have the words of `query`, best first."""
            found = _search(index, query)[:limit]
            width = min(max((len(signature) for signature, _ in found), default=0), 90)
            print("\n".join(f"{s:<{width}}  {rest}" for s, rest in found) or f"No tool has to do with {query!r}.")

        def describe(name: str) -> None:
            """Print all about one tool, such as describe("woocommerce.lookup_order")."""
            tool = index.tool(name)
            every = [f"{server.name}.{tool_name}" for server in index.servers for tool_name in server.by_name]
            print(f"{tool.signature}\n\n{tool.text}" if tool else f"No tool {name!r}.{_did_you_mean(name, every)}")

        names = [*index.by_name, "errors", "search", "describe"]
        vars(module).update(search=search, describe=describe, __getattr__=load, __dir__=lambda: names, __all__=names)

    def _fill_server(self, module: ModuleType, server: Server) -> None:
        module.__doc__ = readable(server.doc)

        def load(name: str) -> Any:
            if name == "__all__":
                return list(server.by_name)
            if (tool := server.by_name.get(name)) is not None:
                made: Any = self._make_stub(server, tool)
            elif name in server.type_names:
                made = server.typed_dict(name)
            else:
                raise with_short_traceback(AttributeError(self._no_attribute(server.name, name)))
            setattr(module, name, made)
            return made

        vars(module).update(__getattr__=load, __dir__=lambda: [*server.by_name, *server.type_names])

    def _make_stub(self, server: Server, tool: Tool) -> Callable[..., Any]:
        name = f"{server.name}.{tool.name}"
        call, failure = self._client.call, self._failure

        def stub(*args: object, **kwargs: object) -> Any:
            __tracebackhide__ = True  # for debuggers, and where another exception is raised from this one
            wrong = misuse(tool, args, kwargs)
            if wrong is not None:
                raise failure("ToolInputError", wrong.message, tool=name, data=wrong.data)
            try:
                return call(name, kwargs)
            except CallFailed as failed:
                e = failed.error
                error = failure(e.type, e.message, tool=e.tool or name, hint=e.hint, data=e.data, retryable=e.retryable)
            except KeyboardInterrupt:
                error = with_short_traceback(KeyboardInterrupt(f"interrupted while {name} was under way"))
            # Outside of the handlers: the cell's traceback has the cell's line, and neither this file's insides nor a
            # second exception "during handling".
            raise error

        stub.__name__ = stub.__qualname__ = tool.name
        stub.__module__ = f"{PACKAGE}.{server.name}"
        stub.__doc__ = tool.text
        stub.__signature__ = _signature(tool)  # type: ignore[attr-defined]
        stub.__annotations__ = {p.name: Shown(p.annotation) for p in tool.parameters} | {"return": Shown(tool.returns)}
        return stub

    def _failure(self, kind: str, message: str, **details: Any) -> BaseException:
        cls = self._errors.get(kind) or self._errors.get("ToolError") or RuntimeError
        error = cls(message)
        vars(error).update(details, message=message)
        return error

    def _no_attribute(self, server: str, name: str) -> str:
        tools = self._index.by_name[server].by_name
        if name in tools:
            return f"{name} is a function: from {PACKAGE}.{server} import {name}"
        likely = _did_you_mean(name, tools)
        listed = f" Tools: {', '.join(tools)}." if len(tools) <= 20 else f' {PACKAGE}.search("...") finds tools.'
        return f"{PACKAGE}.{server} has no tool {name!r}.{likely or listed}"


def _make_errors(entries: Sequence[ErrorClass]) -> Mapping[str, type[Exception]]:
    made: dict[str, type[Exception]] = {}
    for entry in entries:
        parent = made.get(entry.parent)
        members: dict[str, Any] = {"__module__": ERRORS, "__doc__": entry.doc}
        if parent is None:
            members |= {"message": "", "tool": "", "hint": "", "retryable": False, "data": {}}
            members |= {"__str__": _message_and_hint, "_render_traceback_": render}
        made[entry.name] = type(entry.name, (parent or Exception,), members)
    return made


def _message_and_hint(error: Any) -> str:
    return " ".join([*map(str, error.args), *([error.hint] if error.hint else [])])


def _signature(tool: Tool) -> inspect.Signature:
    return inspect.Signature([_parameter(p) for p in tool.parameters], return_annotation=Shown(tool.returns))


def _parameter(parameter: Parameter) -> inspect.Parameter:
    default = inspect.Parameter.empty if parameter.required else parameter.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(parameter.name, kind, default=default, annotation=Shown(parameter.annotation))


def _search(index: Index, query: str) -> list[tuple[str, str]]:
    """Signature and description of what has the query's words; a word in a name counts most."""
    words = [word for word in query.casefold().replace("_", " ").split() if len(word) > 2]
    found = []
    for server in index.servers:
        for tool in server.tools:
            name, rest = f"{server.name}.{tool.name}".casefold(), f"{tool.doc} {tool.signature}".casefold()
            score = sum(3 * (word in name) + (word in rest) for word in words)
            if score:
                found.append((-score, f"{server.name}.{tool.signature}", f"[{tool.effect}] {tool.summary}"))
    return [(signature, rest) for _, signature, rest in sorted(found)]


def _did_you_mean(name: str, candidates: Mapping[str, object] | Sequence[str]) -> str:
    likely = closest(name, candidates)
    return f" Did you mean {likely}?" if likely else ""
