"""Other people's definitions as records: names, types, defaults, checks both ways, and what hostile ones do."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import pytest

from servers.errors import OutputSchemaError, ToolInputError
from servers.foreign.record import Definition
from servers.foreign.settling import settle
from servers.foreign.tool import ForeignToolError, foreign_tool
from servers.registry import Collision, Registry
from servers.rendering import pyi
from servers.tool import Tool

SENT: list[dict[str, Any]] = []


async def send(ctx: object, args: dict[str, Any]) -> Any:
    SENT.append(args)
    return args


def made(
    properties: Mapping[str, Any] | None = None,
    *,
    name: str = "get-thing",
    result: Any = None,
    description: str = "Get it.",
    **more: Any,
) -> Tool:
    schema = {"type": "object", "properties": properties or {}, **more}
    return foreign_tool("things", Definition(name, description, schema, result), call=send)


def annotation(schema: Any, **more: Any) -> str:
    """How a required parameter of this schema is written."""
    signature = made({"x": schema}, required=["x"], **more).signature
    return signature.removeprefix("get_thing(*, x: ").removesuffix(") -> Any")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, "str"),
        ({"type": "integer", "minimum": 1}, "int"),
        ({"type": ["integer", "null"]}, "int | None"),
        ({"type": "string", "nullable": True}, "str | None"),
        ({"enum": ["a", "b", None]}, "Literal['a', 'b'] | None"),
        ({"const": 5}, "Literal[5]"),
        ({"enum": [1.5, 2]}, "float"),
        ({"enum": [f"v{n}" for n in range(500)]}, "str"),
        ({"type": "array", "items": {"type": "number"}}, "list[float]"),
        (
            {"type": "array", "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False},
            "list[str | int]",
        ),
        ({"type": "array"}, "list[Any]"),
        ({"type": "object"}, "dict[str, Any]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "dict[str, int]"),
        ({"type": "object", "patternProperties": {"^x": {"type": "string"}}}, "dict[str, str]"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "number"}]}, "str | float"),
        ({"anyOf": [{"const": "a"}, {"const": "b"}, {"type": "null"}]}, "Literal['a', 'b'] | None"),
        ({"allOf": [{"type": ["string", "integer"]}, {"type": "string", "maxLength": 3}]}, "str"),
        ({"type": "int"}, "int"),
        ({"type": "whatever"}, "Any"),
        (True, "Any"),
        ({}, "Any"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "Any"),
        ({"$ref": "#/$defs/missing"}, "Any"),
    ],
)
def test_schema_is_written_as_a_type(schema: Any, text: str) -> None:
    assert annotation(schema) == text


def test_objects_become_named_types_with_their_own_keys() -> None:
    tool = made(
        {"filter": {"type": "object", "required": ["from"], "properties": {"from": {"type": "string"}, "a-b": {}}}},
        result={"type": "object", "title": "Thing", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    )
    assert tool.signature == "get_thing(*, filter: GetThingFilter = ...) -> Thing"
    text = pyi("Things.", [tool])
    assert "class Thing(TypedDict):\n    id: int" in text
    # `from` and `a-b` are no names that a class body could have.
    assert "'from': str," in text
    assert "'a-b': NotRequired[Any]," in text


def test_type_that_holds_itself_is_written_by_its_name() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "all": {"$ref": "#/$defs/Nodes"}}}
    definitions = {"Node": node, "Nodes": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}
    tool = made({"x": {"$ref": "#/$defs/Node"}}, **{"$defs": definitions})
    assert "next: NotRequired[Node]" in pyi("", [tool])
    assert "all: NotRequired[list[Node]]" in pyi("", [tool])
    tool.validate({"x": {"next": {"next": {"all": [{}]}}}})
    with pytest.raises(ToolInputError, match=r"x\['next'\]\['all'\]"):
        tool.validate({"x": {"next": {"all": 5}}})


@pytest.mark.parametrize(
    "definitions",
    [
        {"A": {"$ref": "#/$defs/A"}},
        {"A": {"$ref": "#/$defs/B"}, "B": {"allOf": [{"$ref": "#/$defs/A"}]}},
        {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}},
        {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}},
    ],
)
def test_references_in_a_circle_end(definitions: Any) -> None:
    assert made({"x": {"$ref": "#/$defs/A"}}, **{"$defs": definitions}).signature.startswith("get_thing(*, x: ")


def test_all_of_is_merged() -> None:
    base = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    tool = made(
        {"pet": {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"n": {"type": "string"}}}]}},
        **{"$defs": {"Base": base}},
    )
    assert "class GetThingPet(TypedDict):\n    id: int\n    n: NotRequired[str]" in pyi("", [tool])


async def test_names_are_mapped_and_the_wire_names_are_sent() -> None:
    tool = made(
        {"X-Trace Id": {"type": "string"}, "class": {"type": "integer"}, "tenant": {}, "ctx": {}}, required=["class"]
    )
    assert [p.name for p in tool.parameters] == ["class_", "X_Trace_Id", "tenant_", "ctx"]
    args = {"class_": 1, "X_Trace_Id": "t", "tenant_": "shop", "ctx": 5}
    assert tool.validate(args) == args  # what the journal keeps: the call as the cell made it
    assert await tool.call(None, args) == {"class": 1, "X-Trace Id": "t", "tenant": "shop", "ctx": 5}  # type: ignore[arg-type]
    assert tool.input_schema["required"] == ["class_"]
    assert set(tool.input_schema["properties"]) == {"class_", "X_Trace_Id", "tenant_", "ctx"}


def test_further_arguments_have_a_parameter_of_their_own() -> None:
    tool = made({"id": {"type": "integer"}}, additionalProperties={"type": "string"})
    assert tool.signature == "get_thing(*, id: int = ..., more: dict[str, str] = ...) -> Any"
    assert tool.foreign is not None
    assert tool.foreign.to_wire(tool.validate({"id": 1, "more": {"a": "b"}})) == {"id": 1, "a": "b"}
    with pytest.raises(ToolInputError, match="more"):
        tool.validate({"more": {"a": 5}})


def test_parameters_that_become_one_are_an_error_that_names_both() -> None:
    with pytest.raises(ForeignToolError, match="'a-b' and 'a_b' both become a_b"):
        made({"a-b": {}, "a_b": {}})


def test_tools_that_become_one_are_left_out_and_both_named() -> None:
    one, other, third = made(name="a-b"), made(name="a_b"), made(name="c")
    settled = settle([one, other, third])
    assert settled.tools == (third,)
    assert settled.problems == ("The tools 'a-b' and 'a_b' of the server things all become a_b: left out.",)
    with pytest.raises(Collision, match="the tool 'a-b' of the server things and by the tool 'a_b'"):
        Registry([one, other], {"things": ""})


def test_equal_types_of_a_server_are_shared_and_unequal_ones_told_apart() -> None:
    def tool(name: str, schema: Any) -> Tool:
        issue = {"type": "object", "properties": {"id": schema, "up": {"$ref": "#/$defs/Issue"}}}
        return made({"x": {"$ref": "#/$defs/Issue"}}, name=name, **{"$defs": {"Issue": issue}})

    one, same, other = settle([tool("one", {}), tool("same", {}), tool("other", {"type": "string"})]).tools
    assert one.signature.endswith("x: Issue = ...) -> Any")
    assert same.signature.endswith("x: Issue = ...) -> Any")
    assert other.signature.endswith("x: OtherIssue = ...) -> Any")
    text = pyi("", [one, same, other])
    assert text.count("(TypedDict)") == 2
    assert "up: NotRequired[OtherIssue]" in text


def test_only_real_defaults_are_shown_and_none_is_sent() -> None:
    tool = made(
        {
            "good": {"type": "integer", "default": 5},
            "whole": {"type": "integer", "default": 5.0},
            "wrong": {"type": "integer", "default": "five"},
            "long": {"type": "string", "default": "x" * 1000},
            "nothing": {"type": ["string", "null"], "default": None},
        }
    )
    defaults = "good: int = 5, whole: int = 5, wrong: int = ..., long: str = ..., nothing: str | None = None"
    assert tool.signature == f"get_thing(*, {defaults}) -> Any"
    assert tool.validate({}) == {}


def test_arguments_are_checked_with_names_types_and_the_likely_name() -> None:
    tool = made(
        {"title": {"type": "string", "maxLength": 3}, "labels": {"type": "array", "items": {"type": "string"}}},
        required=["title"],
    )
    with pytest.raises(
        ToolInputError, match=r"unknown argument 'tilte'; missing argument 'title'.*Did you mean title\?"
    ):
        tool.validate({"tilte": "x"})
    with pytest.raises(ToolInputError, match=r"labels\[1\]: 5 is not of type"):
        tool.validate({"title": "x", "labels": ["a", 5]})
    with pytest.raises(ToolInputError, match=r"labels is None, which is not .* \(leave it out instead\)"):
        tool.validate({"title": "x", "labels": None})


@pytest.mark.parametrize("value", [float("nan"), "\ud800", b"bytes", {1: 2}, object(), 10**400, [[[]]]])
def test_values_that_are_no_json_are_an_input_error(value: object) -> None:
    with pytest.raises(ToolInputError):
        made({"x": {"type": "boolean"}}).validate({"x": value})


def test_result_is_held_against_what_the_server_declared() -> None:
    tool = made(result={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    assert tool.check_result({"n": 1, "more": 2}) == {"n": 1, "more": 2}
    with pytest.raises(OutputSchemaError, match=r"the result\['n'\] does not fit"):
        tool.check_result({"n": "one"})
    assert made().check_result("anything") == "anything"


def test_digest_changes_with_every_part_and_not_with_the_order_of_keys() -> None:
    one = Definition("n", "d", {"type": "object", "properties": {}}, None, {})
    assert one.digest == Definition("n", "d", {"properties": {}, "type": "object"}, None, {}).digest
    others = [
        Definition("m", "d", one.input_schema),
        Definition("n", "e", one.input_schema),
        Definition("n", "d", {"type": "object"}),
        Definition("n", "d", one.input_schema, {}),
        Definition("n", "d", one.input_schema, None, {"readOnlyHint": True}),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 6


def _deep(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("no schema", "where a JSON schema should be"),
        ({"type": "array"}, "of type array"),
        (_deep(5_000), "nested"),
        ({"type": "object", "properties": {f"p{n}": {"enum": list(range(100))} for n in range(1_000)}}, "values"),
        ({"type": "object", "description": "x" * 3_000_000}, "characters"),
    ],
)
def test_schema_that_cannot_be_used_is_a_clear_error(schema: Any, reason: str) -> None:
    with pytest.raises(ForeignToolError, match=f"The tool 'n' of the server s cannot be used: .*({reason})"):
        foreign_tool("s", Definition("n", "", schema), call=send)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=(a+)+$)", r"^(a|a)*\1$"])
def test_pattern_cannot_stop_the_gateway(pattern: str) -> None:
    with pytest.raises(ToolInputError):
        made({"x": {"type": "string", "pattern": pattern}}).validate({"x": "a" * 5_000 + "b"})


def test_what_is_left_out_of_a_definition_is_noted() -> None:
    tool = made({"x": {"pattern": "("}, "y": {"type": "zebra"}, "z": {"$ref": "file:///etc/passwd"}})
    assert tool.foreign is not None
    assert tool.foreign.notes == (
        "the pattern '(' was left out",
        "the type 'zebra' was left out",
        "the reference 'file:///etc/passwd', which leads to nothing in the definition was left out",
    )


def test_older_drafts_are_understood() -> None:
    tool = made(
        {
            "n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "required": True},
            "k": {"$ref": "#/definitions/K"},
        },
        definitions={"K": {"id": "http://example.com/k", "enum": ["a"]}},
        **{"$schema": "http://json-schema.org/draft-04/schema#"},
    )
    assert tool.signature == "get_thing(*, n: int, k: Literal['a'] = ...) -> Any"
    with pytest.raises(ToolInputError):
        tool.validate({"n": 0})
    tool.validate({"n": 1, "k": "a"})


def test_stub_is_python_whose_docstring_is_the_description() -> None:
    text = 'He said """stop""" and left \\ for "good"'
    parsed = ast.parse(pyi('A "server"', [made(description=text)]))
    function = parsed.body[-1]
    assert isinstance(function, ast.FunctionDef)
    assert ast.get_docstring(function) == f"[critical] {text}"
