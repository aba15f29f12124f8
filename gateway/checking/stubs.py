"""The stubs that cells are checked against: one folder for each set of tools, made once; and what is known of them."""

from __future__ import annotations

import ast
import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kernel_pool.sandbox.tool_index import PACKAGE_FUNCTIONS, PACKAGE_MODULES, Index, decode
from servers.errors import ERRORS
from servers.registry import Registry

#: What `servers` has beside servers; what such modules hold is not checked.
OWN = (*PACKAGE_MODULES, *PACKAGE_FUNCTIONS)
_PACKAGE = """\
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

async def aio(tool: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def parallel(function: Callable[[Item], T], items: Iterable[Item]) -> list[T]: ...
def search(query: str, limit: int = 20) -> None: ...
def describe(name: str) -> None: ...
def __getattr__(name: str) -> Any: ...
"""


@dataclass(frozen=True)
class Stubs:
    """One set of tools."""

    registry: Registry
    folder: Path

    @cached_property
    def index(self) -> Index:
        """As a kernel has it, and with its words."""
        return decode(self.registry.index())

    @cached_property
    def keys(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Keys of every named type, by the type's name and the server's."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for server in self.index.servers:
            for name, keys in _typed_dicts(server.pyi):
                found.setdefault(name, {})[server.name] = keys
        return found

    @cached_property
    def open_servers(self) -> frozenset[str]:
        """Foreign servers: their results may have keys that they did not tell of."""
        return frozenset(tool.server for tool in self.registry if tool.foreign is not None)

    def keys_of(self, type_: str, servers: Collection[str] | None = None) -> tuple[str, ...]:
        """The keys of a type, where there is no doubt which one it is, and it has no others; else none.

        `servers`: those that it can be of; None for all.
        """
        owners = {
            server: keys for server, keys in self.keys.get(type_, {}).items() if servers is None or server in servers
        }
        if len(set(owners.values())) != 1 or self.open_servers & owners.keys():
            return ()
        return next(iter(owners.values()))

    def is_dict(self, type_: str) -> bool:
        return type_ in self.keys


def make_stubs(registry: Registry, below: Path) -> Stubs:
    """Write the stubs into a folder of their own; those that are there already are taken. Blocks.

    Raises:
        OSError
    """
    texts = {"__init__": _PACKAGE, "errors": _errors()}
    texts |= {server: _bare(registry.pyi(server)) for server in registry.documents}
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sorted(texts.items())).encode()).hexdigest()
    folder = below / digest[:24]
    if not folder.is_dir():
        fresh = Path(tempfile.mkdtemp(dir=below))
        (fresh / "servers").mkdir()
        for name, text in texts.items():
            (fresh / "servers" / f"{name}.pyi").write_text(text)
        try:
            fresh.rename(folder)
        except OSError:  # somebody else was quicker
            shutil.rmtree(fresh)
    stubs = Stubs(registry, folder)
    # made here, not where a cell waits
    _ = stubs.index, stubs.keys, stubs.open_servers
    return stubs


def _bare(pyi: str) -> str:
    """A stub's types and signatures alone: its words change more often, and say nothing to a checker."""
    tree = ast.parse(pyi)
    for node in ast.walk(tree):
        match node:
            case ast.Module(body=[ast.Expr(value=ast.Constant(value=str())), *rest]):
                node.body = rest
            case ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str()))]):
                node.body = [ast.Expr(ast.Constant(...))]
            case ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())), *rest]):
                node.body = rest or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _errors() -> str:
    lines = ["from typing import Any"]
    for error in ERRORS:
        lines.append(f"class {error.__name__}({error.__mro__[1].__name__}):")
        lines.append("    def __getattr__(self, name: str) -> Any: ...")
    return "\n".join(lines) + "\n"


def _typed_dicts(pyi: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in ast.parse(pyi).body:
        match node:
            case ast.ClassDef(name=name, bases=[ast.Name(id="TypedDict")], body=body):
                yield name, tuple(ast.unparse(item.target) for item in body if isinstance(item, ast.AnnAssign))
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id="TypedDict"), args=[_, ast.Dict(keys=keys)]),
            ):
                yield name, tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))
