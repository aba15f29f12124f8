"""Which names a cell binds and uses, and which keys it gives to dicts. More rather than fewer: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.checking.source import Source

#: Code with one of these makes names in ways that are not seen.
_OPAQUE = {"exec", "eval", "globals", "locals", "vars", "get_ipython", "__import__", "setattr"}
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Names:
    #: Bound or deleted at the top of the cell.
    bound: frozenset[str]
    #: Bound anywhere in it, parameters and attributes' modules included.
    bound_anywhere: frozenset[str]
    used: frozenset[str]
    #: Rebound by a function, some time.
    global_: frozenset[str]
    #: Functions and classes.
    defined: frozenset[str]
    keys: frozenset[str]
    #: Modules of `from x import *`.
    stars: tuple[str, ...]
    opaque: bool
    #: A function gives keys that are not seen to a dict that it was given.
    any_key: bool


@lru_cache(maxsize=256)
def names_of(source: Source) -> Names:
    top = {name for node in _top(source.tree) for name in bindings(node)}
    every = list(ast.walk(source.tree))
    used = {node.id for node in every if isinstance(node, ast.Name)} | {
        "approvals"
        for node in every
        if isinstance(node, ast.ImportFrom) and "approvals" in f"{node.module} {[a.name for a in node.names]}"
    }
    stars = tuple(
        node.module or ""
        for node in every
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    )
    return Names(
        bound=frozenset(top),
        bound_anywhere=frozenset(name for node in every for name in bindings(node)),
        used=frozenset(used),
        global_=frozenset(name for node in every if isinstance(node, ast.Global) for name in node.names),
        defined=frozenset(name for node in _top(source.tree) for name in _definitions(node)),
        keys=frozenset(key for node in every for key in _keys(node)) | _named_keys(every),
        stars=stars,
        opaque=source.magic or bool(used & _OPAQUE),
        any_key=any(_gives_any_key(node) for node in every),
    )


def _top(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes whose bindings are the module's: not below functions and classes, of comprehensions only `:=`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _COMPREHENSIONS):
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
            continue
        yield node
        if not isinstance(node, _SCOPES):
            yield from _top(node)


def bindings(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.NamedExpr(target=ast.Name(id=name)):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
        case ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases if alias.name != "*")
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
        case ast.arg(arg=name):
            yield name


def _definitions(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets, value=value) if _is_function(value):
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _is_function(value: ast.expr) -> bool:
    match value:
        case ast.Lambda() | ast.Call(func=ast.Name(id="partial") | ast.Attribute(attr="partial")):
            return True
    return False


def _keys(node: ast.AST) -> Iterator[str]:
    """Constant keys that end up in some dict: `x[k] = `, `{k: }`, `x.setdefault(k, )`, `x.update(k=)`."""
    match node:
        case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=ast.Store()):
            yield key
        case ast.Dict(keys=keys):
            yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
        case ast.Call(func=ast.Attribute(attr="setdefault" | "__setitem__"), args=[ast.Constant(value=str(key)), *_]):
            yield key
        case ast.Call(keywords=keywords):
            yield from (keyword.arg for keyword in keywords if keyword.arg)


def _named_keys(every: Sequence[ast.AST]) -> frozenset[str]:
    """Where `x[name] = ` gives a key by a name: all text of the cell but what is read as a key."""
    if not any(
        isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.slice, ast.Name)
        for node in every
    ):
        return frozenset()
    read = {id(node.slice) for node in every if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load)}
    return frozenset(
        node.value
        for node in every
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in read
    )


def _gives_any_key(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    arguments = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
    for inner in ast.walk(node):
        match inner:
            case ast.Subscript(value=ast.Name(id=name), slice=key, ctx=ast.Store()):
                if name in arguments and not isinstance(key, ast.Constant):
                    return True
    return False
