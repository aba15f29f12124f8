"""The tools that a cell imports and calls, as far as its text says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from gateway.checking.messages import Call, Import
from gateway.checking.names import Names, bindings
from gateway.checking.places import Places
from gateway.checking.source import Source

PACKAGE = "servers"
#: Longer texts and lists are not looked at as values: they are data, and go through two processes.
_MOST_LITERAL = 20_000


class Tools:
    """What names of the session mean in `servers`: a name with another meaning anywhere has none here."""

    def __init__(self, cells: Sequence[tuple[Source, Names]]) -> None:
        found: dict[str, set[str]] = {}
        for source, _ in cells:
            for node in ast.walk(source.tree):
                for name, meaning in _meanings(node):
                    found.setdefault(name, set()).add(meaning)
        other = {name for source, _ in cells for node in ast.walk(source.tree) for name in _other_bindings(node)}
        self.meanings: Mapping[str, str] = {
            name: next(iter(meanings)) for name, meanings in found.items() if len(meanings) == 1 and name not in other
        }
        #: Servers whose tools the session may hold; None where it holds the package, and so all of them.
        used = {meaning.partition(".")[0] for meanings in found.values() for meaning in meanings}
        used |= {
            module.partition(".")[2]
            for _, names in cells
            for module in names.stars
            if module.partition(".")[0] == PACKAGE
        }
        self.servers = None if "" in used else used
        #: Names that lead to tools, and functions of cells that use such.
        self.reach = set(found)
        for _, names in cells:
            if names.used & self.reach or any(module.startswith(PACKAGE) for module in names.stars):
                self.reach |= names.defined

    def named(self, node: ast.expr) -> str | None:
        """`server.name` (or `server`, or "" for `servers`) of an expression that stands for it."""
        match node:
            case ast.Name(id=name):
                return self.meanings.get(name)
            case ast.Attribute(value=value, attr=attribute):
                owner = self.named(value)
                if owner is None or "." in owner:
                    return None
                return f"{owner}.{attribute}" if owner else attribute
        return None


def imports_of(tree: ast.Module, places: Places, tools: Tools) -> Iterator[Import]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                package, _, server = module.partition(".")
                for alias in aliases if package == PACKAGE else ():
                    wanted = (server, "" if alias.name == "*" else alias.name) if server else (alias.name, "")
                    if wanted != ("*", ""):
                        yield Import(*wanted, place=places.place(node), source=places.source(node))
            case ast.Import(names=aliases):
                for alias in aliases:
                    package, _, rest = alias.name.partition(".")
                    server, _, name = rest.partition(".")
                    if package == PACKAGE and server:
                        yield Import(server, name, places.place(node), places.source(node))
            case ast.Attribute(ctx=ast.Load()) if "." in (name := tools.named(node) or ""):
                server, _, tool = name.partition(".")
                yield Import(server, tool, places.place(node), places.source(node))


def calls_of(tree: ast.Module, places: Places, tools: Tools) -> Iterator[Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, args = tools.named(node.func), node.args
            if name == "aio" and args and not isinstance(args[0], ast.Starred):
                # `aio(tool, ...)` is `tool(...)`, awaited
                name, args = tools.named(args[0]), args[1:]
            if name is not None and name.count(".") == 1:
                yield call_of(name, node, args, places)


def call_of(tool: str, node: ast.Call, args: Sequence[ast.expr], places: Places) -> Call:
    """`args`: the positional ones that are the tool's."""
    literal, other = {}, []
    for keyword in node.keywords:
        if keyword.arg is None:
            continue
        try:
            literal[keyword.arg] = _value(keyword.value)
        except ValueError:
            other.append(keyword.arg)
    return Call(
        tool=tool,
        place=places.place(node),
        source=places.source(node),
        literal=literal,
        other=tuple(other),
        positional=tuple(places.source(arg) for arg in args if not isinstance(arg, ast.Starred)),
        unpacked=any(keyword.arg is None for keyword in node.keywords)
        or any(isinstance(arg, ast.Starred) for arg in args),
        looped=places.looped(node),
    )


def _meanings(node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case ast.ImportFrom(module=str(module), names=aliases, level=0):
            package, _, server = module.partition(".")
            for alias in aliases if package == PACKAGE and "." not in server else ():
                if alias.name != "*" and module != f"{PACKAGE}.errors":
                    yield alias.asname or alias.name, f"{server}.{alias.name}" if server else alias.name
        case ast.Import(names=aliases):
            for alias in aliases:
                package, _, server = alias.name.partition(".")
                if package == PACKAGE and "." not in server:
                    yield (alias.asname, server) if alias.asname else (PACKAGE, "")


def _other_bindings(node: ast.AST) -> Iterator[str]:
    """Names that are bound to something else than tools."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        own = {name for name, _ in _meanings(node)}
        yield from (name for name in bindings(node) if name not in own)
    else:
        yield from bindings(node)


def _value(node: ast.expr) -> object:
    """A value that stands in the cell, as JSON has it. Raises ValueError for what is none."""
    if (getattr(node, "end_col_offset", 0) or 0) - node.col_offset > _MOST_LITERAL:
        raise ValueError
    return _plain(ast.literal_eval(node))


def _plain(value: object) -> object:
    match value:
        case None | bool() | str() | float():
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _plain(item) for key, item in value.items()}
    raise ValueError
