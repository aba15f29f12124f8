"""Where a node of a cell stands: whether what goes wrong there is caught, runs later, or runs again and again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.checking.messages import Place

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
#: `with` of these swallows what goes wrong inside.
_SWALLOWING = ("suppress", "raises", "assertRaises")
_SHOWN = 200


@dataclass(frozen=True)
class Around:
    """What a node stands in."""

    guarded: bool = False
    deferred: bool = False
    looped: bool = False


class Places:
    """All nodes of a cell with what they stand in."""

    def __init__(self, tree: ast.Module, text: str) -> None:
        self._lines = text.encode().split(b"\n")
        self.around: dict[ast.AST, Around] = {}
        self._enter(tree)
        #: Expressions by where they stand, and all nodes by their class.
        self._exact: dict[tuple[int, ...], ast.expr] = {}
        self._of: dict[type[ast.AST], list[ast.AST]] = {}
        for node in self.around:
            self._of.setdefault(type(node), []).append(node)
            if isinstance(node, ast.expr):
                self._exact.setdefault(_span(node), node)

    def _enter(self, tree: ast.Module) -> None:
        """Without recursion: expressions may be nested deeper than Python's own stack."""
        stack: list[tuple[ast.AST, Around]] = [(tree, Around())]
        while stack:
            node, around = stack.pop()
            self.around[node] = around
            stack += [(child, _around(node, field, around)) for field, child in _children(node)]

    def place(self, node: ast.AST) -> Place:
        around = self.around.get(node, Around())
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        return Place(line, column, guarded=around.guarded, deferred=around.deferred)

    def position(self, line: int, column: int) -> Place:
        """A position, with what the innermost node there stands in."""
        at = (line, column)
        over = [node for node in self.around if hasattr(node, "lineno") and _span(node)[:2] <= at < _span(node)[2:]]
        around = self.around[max(over, key=_span)] if over else Around()
        return Place(line, column, guarded=around.guarded, deferred=around.deferred)

    def looped(self, node: ast.AST) -> bool:
        return self.around[node].looped

    def source(self, node: ast.AST) -> str:
        """The node's own text, in one line and not endless."""
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        end, end_column = getattr(node, "end_lineno", 0) or line, getattr(node, "end_col_offset", 0) or column
        lines = self._lines[line - 1 : end][:20]
        if not lines:
            return ""
        if end - line < len(lines):
            lines[-1] = lines[-1][:end_column]
        lines[0] = lines[0][column:]
        return b" ".join(each.strip() for each in lines).decode(errors="replace")[:_SHOWN]

    def line(self, number: int) -> str:
        return self._lines[number - 1].decode(errors="replace").strip()[:_SHOWN] if number <= len(self._lines) else ""

    def spanning(self, line: int, column: int, kind: type[ast.AST]) -> ast.AST | None:
        """The innermost node of a class over a position."""
        found = [node for node in self._of.get(kind, ()) if _span(node)[:2] <= (line, column) < _span(node)[2:]]
        return max(found, key=_span, default=None)

    def at(self, line: int, column: int, end_line: int, end_column: int) -> ast.expr | None:
        """The expression that takes exactly this stretch."""
        return self._exact.get((line, column, end_line, end_column))


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield field, value
        elif isinstance(value, list):
            yield from ((field, item) for item in value if isinstance(item, ast.AST))


def _around(node: ast.AST, field: str, around: Around) -> Around:
    guarded, deferred, looped = around.guarded, around.deferred, around.looped
    match node:
        case ast.Try(handlers=[_, *_]) | ast.TryStar() if field == "body":
            guarded = True
        case ast.With(items=items) | ast.AsyncWith(items=items) if field == "body":
            guarded = guarded or any(_swallows(item.context_expr) for item in items)
    if isinstance(node, _FUNCTIONS) and field == "body":
        deferred, looped = True, False
    if isinstance(node, _LOOPS) and field in ("body", "test"):
        looped = True
    if isinstance(node, _COMPREHENSIONS) and field in ("elt", "key", "value"):
        looped = True
    return Around(guarded, deferred, looped)


def _swallows(context: ast.expr) -> bool:
    function = context.func if isinstance(context, ast.Call) else context
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _SWALLOWING


def _span(node: ast.AST) -> tuple[int, int, int, int]:
    line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
    return line, column, getattr(node, "end_lineno", 0) or line, getattr(node, "end_col_offset", 0) or column
