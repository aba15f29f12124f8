"""What is wrong with a stub, seen by a parser: it may have nothing but what was declared."""

from __future__ import annotations

import ast
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from servers.tool import Tool

#: What an annotation may be made of.
ANNOTATION = (ast.Name, ast.Subscript, ast.BinOp, ast.BitOr, ast.Tuple, ast.Constant, ast.Load, ast.UnaryOp, ast.USub)
#: What a default may be made of besides.
DEFAULT = (ast.Constant, ast.List, ast.Dict, ast.Load, ast.UnaryOp, ast.USub)


def undeclared(text: str, tools: Iterable[Tool]) -> list[str]:
    """Nodes of a stub that no tool of it declared; none is well. Raises SyntaxError."""
    return list(_undeclared(ast.parse(text), {tool.name: tool for tool in tools}))


def hidden(text: str) -> set[str]:
    """Characters in a text that nobody sees, or that change how others are seen."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}


def type_errors(folder: Path) -> str:
    """What `ty` has to say of all stubs in a folder at once; "" where nothing."""
    ty = Path(sys.executable).with_name("ty")
    command = [ty, "check", "--python-version", "3.11", "--output-format", "concise", "--no-progress", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return "" if done.returncode == 0 else done.stdout[-4_000:] + done.stderr[-1_000:]


def _undeclared(module: ast.Module, tools: dict[str, Tool]) -> Iterator[str]:
    names = {record.name for tool in tools.values() if tool.foreign for record in tool.foreign.types}
    doc, header, *rest = module.body
    if not (isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)):
        yield f"no docstring first: {ast.dump(doc)[:200]}"
    if not (isinstance(header, ast.ImportFrom) and header.module == "typing"):
        yield f"not the import: {ast.dump(header)[:200]}"
    functions = [node for node in rest if isinstance(node, ast.FunctionDef)]
    if sorted(node.name for node in functions) != sorted(tools):
        yield f"functions {[node.name for node in functions]}"
    for node in rest:
        match node:
            case ast.FunctionDef(name=name) if name in tools:
                yield from _function(node, tools[name])
            case ast.ClassDef(name=name, bases=[ast.Name("TypedDict")], keywords=[], decorator_list=[]) if (
                name in names
            ):
                names.remove(name)
                yield from _class(node)
            case ast.Assign([ast.Name(name)], ast.Call(ast.Name("TypedDict"), [_, ast.Dict(keys, values)], [])):
                names.discard(name)
                yield from (f"key {ast.dump(key)}" for key in keys if not isinstance(key, ast.Constant))
                for value in values:
                    yield from _only(value, ANNOTATION)
            case _:
                yield f"undeclared: {ast.unparse(node)[:200]}"
    if names:
        yield f"missing: {names}"


def _function(node: ast.FunctionDef, tool: Tool) -> Iterator[str]:
    if [p.name for p in tool.parameters] != [a.arg for a in node.args.kwonlyargs] or node.args.args:
        yield f"parameters of {tool.name}: {ast.unparse(node.args)[:200]}"
    for argument in node.args.kwonlyargs:
        if argument.annotation is not None:
            yield from _only(argument.annotation, ANNOTATION)
    for default in node.args.kw_defaults:
        if default is not None:
            yield from _only(default, DEFAULT)
    if len(node.body) != 1 or ast.get_docstring(node) is None or node.decorator_list:
        yield f"more than a docstring in {tool.name}"


def _class(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        match item:
            case ast.AnnAssign(ast.Name(), annotation, None):
                yield from _only(annotation, ANNOTATION)
            case ast.Expr(ast.Constant(str())) | ast.Pass():
                pass
            case _:
                yield f"undeclared in {node.name}: {ast.unparse(item)[:200]}"


def _only(node: ast.AST, allowed: tuple[type[ast.AST], ...]) -> Iterator[str]:
    yield from (f"{ast.dump(each)[:200]}" for each in ast.walk(node) if not isinstance(each, allowed))
