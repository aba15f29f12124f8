"""One record, every surface: what they say of a tool's name, parameters, defaults and choices is the same."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import jsonschema_rs
import pytest

from kernel_pool.sandbox import tool_index
from kernel_pool.sandbox.stubs import _signature
from servers.brief import brief
from servers.errors import ToolInputError
from servers.exports import function_name, structured
from servers.foreign.record import Definition
from servers.foreign.settling import settle
from servers.foreign.tool import foreign_tool
from servers.reference import page
from servers.registry import Registry, load_registry
from servers.rendering import pyi, stub
from servers.tool import EVERYBODY, OMITTED, Tool


async def call(ctx: object, args: dict[str, Any]) -> Any:
    return args


FOREIGN = settle(
    foreign_tool("things", Definition(name, "Do it.", schema, result), call=call, roles=EVERYBODY)
    for name, schema, result in (
        (
            "make-thing",
            {
                "type": "object",
                "properties": {
                    "kind": {"enum": ["a", "b"], "default": "a"},
                    "class": {"type": "integer"},
                    "size": {"$ref": "#/$defs/Size"},
                },
                "required": ["class"],
                "$defs": {"Size": {"type": "object", "properties": {"w": {"type": "number"}}, "required": ["w"]}},
            },
            {"type": "object", "properties": {"id": {"type": "string"}}},
        ),
        ("list", {"type": "object", "properties": {}}, {"type": "array", "items": {"type": "integer"}}),
        ("n" * 90 + "\u4f60", {"type": "object", "properties": {"\u540d": {"type": "string"}}}, None),
    )
).tools
REGISTRY = load_registry()
EVERYTHING = Registry([*REGISTRY, *FOREIGN], {**REGISTRY.documents, "things": "Things of others."})
INDEX = tool_index.decode(EVERYTHING.index())


@pytest.mark.parametrize("tool", list(EVERYTHING), ids=lambda tool: tool.qualified_name[:40])
def test_all_surfaces_agree(tool: Tool) -> None:
    names = [p.name for p in tool.parameters]
    required = [p.name for p in tool.parameters if p.required]
    defaults = {p.name: p.default for p in tool.parameters if not p.required and p.default is not OMITTED}

    schema = tool.input_schema
    jsonschema_rs.Draft202012Validator(schema)
    assert sorted(schema["properties"]) == sorted(names)
    assert sorted(schema["required"]) == sorted(required)
    told = {name: inner["default"] for name, inner in schema["properties"].items() if "default" in inner}
    assert told == defaults

    assert _of_stub(stub(tool)) == (names, required, defaults, _choices_of_schema(schema))

    entry = INDEX.tool(tool.qualified_name)
    assert entry is not None
    assert [p.name for p in entry.parameters] == names
    assert [p.name for p in entry.parameters if p.required] == required
    signature = _signature(entry)
    assert list(signature.parameters) == names
    shown = {p.name: p.default for p in signature.parameters.values() if p.default is not inspect.Parameter.empty}
    assert {name: value for name, value in shown.items() if repr(value) != "..."} == defaults
    assert entry.signature == tool.signature
    assert entry.effect == tool.effect

    (function,) = EVERYTHING.openai_tools([tool.qualified_name])
    (exported,) = EVERYTHING.mcp_tools([tool.qualified_name])
    assert function["function"]["name"] == exported["name"] == function_name(tool)
    assert function["function"]["parameters"] == exported["inputSchema"] == schema
    assert function["function"]["description"] == exported["description"] == tool.doc
    assert EVERYTHING.from_function_name(exported["name"]) is tool
    assert exported["annotations"]["readOnlyHint"] == (tool.effect == "read")
    assert exported["annotations"]["destructiveHint"] == (tool.effect == "critical")

    line = next(line for line in brief([tool]).splitlines() if line.startswith(f"{tool.name}("))
    assert (tool.summary if tool.effect == "read" else f"[{tool.effect}] {tool.summary}") in line
    assert "[read]" not in line
    with pytest.raises(ToolInputError) as refused:
        tool.validate({"no_such_argument": 1})
    assert refused.value.data["valid"] == names
    assert refused.value.data["missing"] == required


@pytest.mark.parametrize("server", EVERYTHING.documents)
def test_page_and_stub_have_every_tool(server: str) -> None:
    tools = EVERYTHING.of_server(server)
    text = page(EVERYTHING, server)
    for tool in tools:
        assert f"\n## {tool.name}\n" in text
        assert tool.signature in text
        assert text.count(f"| `{tool.name}` | {tool.effect} |") == 1
    functions = [node for node in ast.parse(EVERYTHING.pyi(server)).body if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions] == [tool.name for tool in tools]


@pytest.mark.parametrize("tool", list(EVERYTHING), ids=lambda tool: tool.qualified_name[:40])
def test_declared_results_are_objects_for_mcp(tool: Tool) -> None:
    (exported,) = EVERYTHING.mcp_tools([tool.qualified_name])
    if "outputSchema" in exported:
        assert exported["outputSchema"]["type"] == "object"
        jsonschema_rs.Draft202012Validator(exported["outputSchema"])


def test_result_is_wrapped_where_its_schema_is() -> None:
    made, listed, unknown = FOREIGN
    assert structured(made, {"id": "x"}) == {"id": "x"}
    assert structured(listed, [1]) == {"result": [1]}
    assert structured(unknown, "text") is None
    validator = jsonschema_rs.Draft202012Validator(EVERYTHING.mcp_tools(["things.list_"])[0]["outputSchema"])
    assert validator.is_valid(structured(listed, [1]))


def test_function_names_are_such_as_apis_take() -> None:
    names = [function_name(tool) for tool in EVERYTHING]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and len(name) <= 64 for name in names)


def _of_stub(text: str) -> tuple[list[str], list[str], dict[str, Any], dict[str, set[Any]]]:
    """Names, those required, defaults and choices that a stub declares."""
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args.kwonlyargs
    given = dict(zip([a.arg for a in arguments], function.args.kw_defaults, strict=True))
    known = {name: default for name, default in given.items() if default is not None}
    literal = {name: ast.literal_eval(default) for name, default in known.items() if ast.unparse(default) != "..."}
    choices = {a.arg: found for a in arguments if a.annotation and (found := _choices(a.annotation))}
    return [a.arg for a in arguments], [name for name in given if name not in known], literal, choices


def _choices(annotation: ast.expr) -> set[Any]:
    match annotation:
        case ast.Subscript(ast.Name("Literal"), values):
            found = ast.literal_eval(values)
            return set(found) if isinstance(found, tuple) else {found}
        case ast.BinOp(left, ast.BitOr(), right):
            return _choices(left) | _choices(right)
    return set()


def _choices_of_schema(schema: dict[str, Any]) -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    for name, inner in schema["properties"].items():
        branches = [inner, *inner.get("anyOf", ())]
        values = {value for branch in branches for value in branch.get("enum", ()) if value is not None}
        if values:
            found[name] = values
    return found


def test_stub_of_a_server_is_what_its_tools_say() -> None:
    assert pyi("Things.", FOREIGN).count("def ") == len(FOREIGN)
