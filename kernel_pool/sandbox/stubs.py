"""Tools as modules: `from servers.woocommerce import lookup_order`, served from the index.

A module holds no logic and no secret: a name that is asked for becomes a function whose one statement is a call to the
broker. Nothing is made before it is asked for, so importing costs the same for ten tools and for ten thousand.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from .approvals import CALL, CellPaused, Desk
from .client import BrokerClient, CallFailed, Stream
from .folder import write_folder
from .lookup import AskedServer, FoundTool, Lookup, NoBroker, NotFound
from .parallel import AWAITED, aio, parallel
from .tool_index import (
    PACKAGE_FUNCTIONS,
    PACKAGE_MODULES,
    ErrorClass,
    Index,
    Parameter,
    Server,
    Shown,
    Tool,
    closest,
    decode,
    misuse,
    readable,
)
from .tracebacks import render, with_short_traceback

PACKAGE = "servers"
ERRORS = f"{PACKAGE}.errors"
APPROVALS = f"{PACKAGE}.approvals"


def install(index_path: str, broker_path: str, rules_path: str = "") -> None:
    """Make `servers` importable. Reads files; connects to nothing before the first call, so a fork may follow.

    `rules_path`: a JSON object; `patience_s` in it is how long a call waits for a broker that went away.
    """
    index = decode(Path(index_path).read_bytes())
    rules = json.loads(Path(rules_path).read_bytes()) if rules_path and Path(rules_path).exists() else {}
    client = BrokerClient(broker_path, rules.get("patience_s", 0.0))
    sys.meta_path.insert(0, ToolFinder(index, client, Lookup(broker_path)))


class ToolFinder:
    """Finder and loader of `servers`, `servers.errors` and `servers.<server>`.

    The index in the sandbox has the servers that every tenant has. Others, and what this session may use of all of
    them, are asked of the broker; where there is none, the index is all there is.
    """

    def __init__(self, index: Index, client: BrokerClient, lookup: Lookup) -> None:
        self._index = index
        self._client = client
        self._lookup = lookup
        #: Servers that were found between a module's spec and its execution.
        self._asked: dict[str, AskedServer] = {}
        self._errors = _make_errors(index.errors)
        self._desk = Desk(self._send_batch, lambda error: self._failure(**error))
        for server in index.servers:
            _ = server.by_name  # made once before the fork, not by every kernel's first import

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raises ImportError, with the likely name, for what `servers` does not have."""
        package, _, rest = name.partition(".")
        if package != PACKAGE:
            return None
        server, _, attribute = rest.partition(".")
        if attribute:
            known = self._index.by_name.get(server) or self._ask_for(server)
            raise with_short_traceback(ImportError(self._no_attribute(known, attribute), name=name))
        if rest and rest not in PACKAGE_MODULES and rest not in self._index.by_name:
            self._asked[rest] = self._ask_for(rest)
        # Servers count as packages only so that a wrong name in `from servers.x import y` comes here.
        return ModuleSpec(name, self, is_package=rest not in PACKAGE_MODULES)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name == PACKAGE:
            self._fill_package(module)
        elif name == ERRORS:
            module.__doc__ = "What tools raise; ToolError is the base of all."
            vars(module).update(self._errors, __all__=list(self._errors))
        elif name == APPROVALS:
            module.__doc__ = "Writes that a person is asked about together."
            vars(module).update(batch=self._desk.batch, __all__=["batch"])
        else:
            server = name.rpartition(".")[2]
            self._fill_server(module, self._index.by_name.get(server) or self._asked.pop(server))

    def _ask_for(self, name: str) -> AskedServer:
        """A server that is not in the index. Raises ModuleNotFoundError, with the likely name."""
        full = f"{PACKAGE}.{name}"
        try:
            return self._lookup.server(name)
        except NoBroker:
            known = ", ".join(self._index.by_name)
            message = f"There is no {full}.{_did_you_mean(name, self._index.by_name)} Servers: {known}."
        except NotFound as error:
            message = f"There is no {full}.{_did_you_mean(name, self._index.by_name)} {error}"
        raise with_short_traceback(ModuleNotFoundError(message, name=full))

    def _fill_package(self, module: ModuleType) -> None:
        index = self._index
        lines = [f"{PACKAGE}.{server.name}: {readable(server.doc)}" for server in index.servers]
        how = "search(words) finds tools of these and other servers; describe(name) tells all about one."
        module.__doc__ = "\n".join(["Tools, by server:", "", *lines, "", how])
        names = [*index.by_name, *PACKAGE_MODULES, *PACKAGE_FUNCTIONS]

        def load(name: str) -> ModuleType:
            if name == "__path__" or name.startswith("_"):
                raise AttributeError(name)
            try:
                return importlib.import_module(f"{PACKAGE}.{name}")
            except ModuleNotFoundError as error:
                raise with_short_traceback(AttributeError(str(error))) from None

        def search(query: str, limit: int = 20) -> None:
            """Print the tools that have to do with `query`, best first: in your own words or theirs."""
            try:
                found = self._lookup.search(str(query)[:1000], max(1, min(int(limit), 50)))
            except NoBroker:
                found = _search(index, query)[: max(1, limit)]
            except NotFound as error:
                print(error)
                return
            print(_aligned(found) or f"No tool has to do with {query!r}.")

        def describe(name: str) -> None:
            """Print all about one tool, such as describe("woocommerce.lookup_order"), or the tools of one server."""
            print(self._described(str(name)))

        def folder(*servers: str) -> Path:
            """Write stubs of the named servers, or of all, into the folder `servers`, to be listed and read."""
            return write_folder(self._lookup, index, servers)

        vars(module).update(search=search, describe=describe, folder=folder, aio=aio, parallel=parallel)
        vars(module).update(__getattr__=load, __dir__=lambda: names, __all__=names)

    def _described(self, name: str) -> str:
        server, _, tool = name.removeprefix(f"{PACKAGE}.").partition(".")
        try:
            if tool:
                found = self._lookup.tool(f"{server}.{tool}")
                return f"{found.signature}\n\n{found.text}"
            asked = self._lookup.server(server)
            return f"{readable(asked.doc)}\n\n{', '.join(asked.names)}"
        except NotFound as error:
            return str(error)
        except NoBroker:
            return self._described_here(server, tool)

    def _described_here(self, server: str, name: str) -> str:
        known = self._index.by_name.get(server)
        if known is not None and not name:
            return f"{readable(known.doc)}\n\n{', '.join(known.names)}"
        if tool := self._index.tool(f"{server}.{name}"):
            return f"{tool.signature}\n\n{tool.text}"
        every = [f"{known.name}.{tool_name}" for known in self._index.servers for tool_name in known.by_name]
        return f"No tool {f'{server}.{name}'!r}.{_did_you_mean(f'{server}.{name}', every)}"

    def _fill_server(self, module: ModuleType, server: Server | AskedServer) -> None:
        module.__doc__ = readable(server.doc)

        def names() -> list[str]:
            """Those that this session may call; where nobody can tell, all that there are."""
            try:
                return list(self._lookup.server(server.name).names)
            except (NoBroker, NotFound):
                return list(server.names)

        def load(name: str) -> Any:
            if name == "__all__":
                return names()
            if name.startswith("_"):
                raise AttributeError(name)
            if (tool := self._tool(server, name)) is not None:
                made: Any = self._make_stub(server.name, tool)
            elif name in server.type_names:
                made = server.typed_dict(name)
            else:
                raise with_short_traceback(AttributeError(self._no_attribute(server, name)))
            setattr(module, name, made)
            return made

        vars(module).update(__getattr__=load, __dir__=lambda: [*names(), *server.type_names])

    def _tool(self, server: Server | AskedServer, name: str) -> Tool | None:
        try:
            return server.tool(name)
        except NoBroker as error:
            raise with_short_traceback(ImportError(f"{PACKAGE}.{server.name}.{name}: {error}")) from None

    def _make_stub(self, server: str, tool: Tool) -> Callable[..., Any]:
        name = f"{server}.{tool.name}"
        failure, note = self._failure, self._desk.note
        call: Callable[..., Any] = self._streamed if tool.streams else self._client.call

        def stub(*args: object, **kwargs: object) -> Any:
            __tracebackhide__ = True  # for debuggers, and where another exception is raised from this one
            wrong = misuse(tool, args, kwargs)
            if wrong is not None:
                raise failure("ToolInputError", wrong.message, tool=name, data=wrong.data)
            if tool.effect != "read" and (handle := note(name, kwargs)) is not None:
                return handle
            try:
                return call(name, kwargs)
            except CallFailed as failed:
                error = self._error(failed, name)
            except KeyboardInterrupt:
                error = with_short_traceback(KeyboardInterrupt(f"interrupted while {name} was under way"))
            # Outside of the handlers: the cell's traceback has the cell's line, and neither this file's insides nor a
            # second exception "during handling".
            raise error

        async def awaited(*args: object, **kwargs: object) -> Any:
            wrong = misuse(tool, args, kwargs)
            if wrong is not None:
                raise failure("ToolInputError", wrong.message, tool=name, data=wrong.data)
            if tool.effect != "read" and (handle := note(name, kwargs)) is not None:
                return handle
            try:
                return await self._client.call_async(name, kwargs)
            except CallFailed as failed:
                error = self._error(failed, name)
            raise error

        stub.__name__ = stub.__qualname__ = tool.name
        vars(stub)[AWAITED] = awaited if not tool.streams else None
        stub.__module__ = f"{PACKAGE}.{server}"
        stub.__doc__ = tool.text
        stub.__signature__ = _signature(tool)  # type: ignore[attr-defined]
        stub.__annotations__ = {p.name: Shown(p.annotation) for p in tool.parameters} | {"return": Shown(tool.returns)}
        return stub

    def _streamed(self, tool: str, args: Mapping[str, object]) -> Stream:
        return self._client.stream(tool, args, lambda failed: self._error(failed, tool))

    def _send_batch(self, title: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        __tracebackhide__ = True
        try:
            outcomes: list[dict[str, Any]] = self._client.call(CALL, {"title": title, "calls": calls})
            return outcomes
        except CallFailed as failed:
            error = self._error(failed, CALL)
        raise error

    def _error(self, failed: CallFailed, tool: str) -> BaseException:
        """What a cell sees of it."""
        e = failed.error
        return self._failure(e.type, e.message, tool=e.tool or tool, hint=e.hint, data=e.data, retryable=e.retryable)

    def _failure(self, type: str, message: str, **details: Any) -> BaseException:
        if details.get("data", {}).get("parked"):
            return with_short_traceback(CellPaused(message))
        cls = self._errors.get(type) or self._errors.get("ToolError") or RuntimeError
        error = cls(message)
        vars(error).update(details, message=message)
        return error

    def _no_attribute(self, server: Server | AskedServer, name: str) -> str:
        tools = server.names
        if name in tools:
            return f"{name} is a function: from {PACKAGE}.{server.name} import {name}"
        likely = _did_you_mean(name, tools)
        listed = f" Tools: {', '.join(tools)}." if len(tools) <= 20 else f' {PACKAGE}.search("...") finds tools.'
        return f"{PACKAGE}.{server.name} has no tool {name!r}.{likely or listed}"


def _make_errors(entries: Sequence[ErrorClass]) -> Mapping[str, type[Exception]]:
    made: dict[str, type[Exception]] = {}
    for entry in entries:
        parent = made.get(entry.parent)
        members: dict[str, Any] = {"__module__": ERRORS, "__doc__": entry.doc}
        if parent is None:
            members |= {"message": "", "tool": "", "hint": "", "retryable": False, "data": {}}
            members |= {"__str__": _message_and_hint, "_render_traceback_": render}
            members |= {"retry_after": property(_retry_after)}
        made[entry.name] = type(entry.name, (parent or Exception,), members)
    return made


def _retry_after(error: Any) -> float | None:
    """Seconds until another try may be worth it, where the upstream said so."""
    found = error.data.get("retry_after")
    return float(found) if isinstance(found, int | float) else None


def _message_and_hint(error: Any) -> str:
    return " ".join([*map(str, error.args), *([error.hint] if error.hint else [])])


def _signature(tool: Tool) -> inspect.Signature:
    return inspect.Signature([_parameter(p) for p in tool.parameters], return_annotation=Shown(tool.returns))


def _parameter(parameter: Parameter) -> inspect.Parameter:
    unknown = Shown("...") if parameter.default is msgspec.UNSET else parameter.default
    default = inspect.Parameter.empty if parameter.required else unknown
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(parameter.name, kind, default=default, annotation=Shown(parameter.annotation))


def _search(index: Index, query: str) -> tuple[FoundTool, ...]:
    """Without a broker: what has the query's words; a word in a name counts most."""
    words = [word for word in query.casefold().replace("_", " ").split() if len(word) > 2]
    found = []
    for server in index.servers:
        for tool in server.tools:
            name, rest = f"{server.name}.{tool.name}".casefold(), f"{tool.doc} {tool.signature}".casefold()
            score = sum(3 * (word in name) + (word in rest) for word in words)
            if score:
                call = f"{server.name}.{tool.signature}"
                found.append((-score, FoundTool(f"{server.name}.{tool.name}", call, tool.effect, tool.summary)))
    return tuple(tool for _, tool in sorted(found, key=lambda pair: (pair[0], pair[1].name)))


def _aligned(found: Sequence[FoundTool]) -> str:
    width = min(max((len(tool.call) for tool in found), default=0), 90)
    lines = (f"{tool.call:<{width}}  [{tool.effect}] {tool.doc}" for tool in found)
    return "\n".join(readable(line.replace("\n", " ")) for line in lines)


def _did_you_mean(name: str, candidates: Mapping[str, object] | Sequence[str]) -> str:
    likely = closest(name, candidates)
    return f" Did you mean {likely}?" if likely else ""
