"""One definition, every surface: validation, schema, signature, stub, index."""

from __future__ import annotations

import ast
import json
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from tool_bench import context_for

from servers.context import ToolContext
from servers.dispatch import dispatcher
from servers.errors import ERRORS, OutputSchemaError, ToolError, ToolInputError, ToolNotFound
from servers.registry import Collision, Registry, load_registry
from servers.tool import Tool, tool


class Part(TypedDict):
    sku: str


class Thing(TypedDict):
    """A thing."""

    id: Annotated[int, Meta(description="its id")]
    parts: list[Part]
    note: NotRequired[str]


@tool(effect="read")
async def find_thing(
    ctx: ToolContext,
    *,
    thing_id: Annotated[int, Meta(description="id of the thing", ge=1)],
    colours: list[Literal["red", "blue"]] | None = None,
    limit: Annotated[int, Meta(ge=1, le=10)] = 5,
) -> Thing:
    """Find a thing.

    More about it.
    """
    if thing_id == 404:
        raise ToolNotFound("no such thing")
    if thing_id == 500:
        return {"id": "not a number", "parts": []}  # type: ignore[typeddict-item]
    return Thing(id=thing_id, parts=[{"sku": "a", "secret": "x"}], note=f"{limit}")  # type: ignore[typeddict-unknown-key]


@tool(effect="critical")
async def burn_thing(ctx: ToolContext, *, thing_id: int) -> Thing:
    """Burn a thing."""
    return Thing(id=thing_id, parts=[])


@pytest.fixture
def context() -> ToolContext:
    return context_for("http://127.0.0.1:9", None)  # type: ignore[arg-type]


@pytest.fixture
def things() -> Registry:
    both = dispatcher(server=find_thing.server, name="things", doc="Things.", operations=(find_thing, burn_thing))
    return Registry([find_thing, burn_thing, both], {find_thing.server: "All things."})


def test_arguments_are_converted_and_defaults_filled_in() -> None:
    assert find_thing.validate({"thing_id": "7"}) == {"thing_id": 7, "colours": None, "limit": 5}


def test_a_wrong_name_is_answered_with_the_valid_ones_and_the_likely_one() -> None:
    with pytest.raises(ToolInputError) as error:
        find_thing.validate({"thing": 7})
    assert str(error.value) == (
        "find_thing: unknown argument 'thing'; missing argument 'thing_id'. "
        "Valid: thing_id*, colours, limit (* required). Did you mean thing_id?"
    )
    assert error.value.data["valid"] == ["thing_id", "colours", "limit"]


def test_the_likely_name_is_found_among_the_optional_ones() -> None:
    with pytest.raises(ToolInputError, match=r"Did you mean limit\?"):
        find_thing.validate({"thing_id": 1, "limits": 3})


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"thing_id": "x"}, "thing_id is 'x', which is not int"),
        ({"thing_id": 0}, "thing_id is 0, which is not int (expected `int` >= 1)"),
        ({"thing_id": True}, "thing_id is True, which is not int"),
        ({"thing_id": 1, "colours": ["red", "green"]}, "colours[1] is"),
        ({"thing_id": 1, "limit": 11}, "expected `int` <= 10"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wanted(args: dict[str, Any], told: str) -> None:
    with pytest.raises(ToolInputError) as error:
        find_thing.validate(args)
    assert told in str(error.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ToolInputError) as error:
        find_thing.validate({"thing_id": "x", "limit": 99, "colour": []})
    assert {"unknown": ["colour"], "missing": [], "invalid": ["thing_id", "limit"]}.items() <= error.value.data.items()


@given(st.dictionaries(st.text() | st.just("thing_id"), st.none() | st.text() | st.lists(st.floats()), max_size=5))
def test_wild_arguments_are_refused_in_a_message_of_bounded_length(args: dict[str, Any]) -> None:
    with pytest.raises(ToolInputError) as error:
        find_thing.validate(args)
    assert len(str(error.value)) < 400 + 80 * len(args)


async def test_a_result_keeps_what_is_declared_and_loses_the_rest(context: ToolContext) -> None:
    assert await find_thing.call(context, {"thing_id": 1, "limit": 2}) == {
        "id": 1,
        "parts": [{"sku": "a"}],
        "note": "2",
    }


async def test_a_result_that_does_not_fit_is_an_error(context: ToolContext) -> None:
    with pytest.raises(OutputSchemaError, match=r"find_thing: the result does not fit the declared type Thing.*id"):
        await find_thing.call(context, {"thing_id": 500})


async def test_an_error_carries_its_tools_name(context: ToolContext) -> None:
    with pytest.raises(ToolNotFound) as error:
        await find_thing.call(context, {"thing_id": 404})
    assert error.value.tool == find_thing.qualified_name


def test_the_schema_has_bounds_descriptions_and_nothing_else_is_allowed() -> None:
    assert find_thing.input_schema == {
        "type": "object",
        "properties": {
            "thing_id": {"type": "integer", "minimum": 1, "description": "id of the thing"},
            "colours": {
                "anyOf": [{"type": "array", "items": {"enum": ["blue", "red"]}}, {"type": "null"}],
                "default": None,
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": 10, "default": 5},
        },
        "required": ["thing_id"],
        "additionalProperties": False,
    }


def test_the_signature_is_plain_python() -> None:
    assert find_thing.signature == (
        "find_thing(*, thing_id: int, colours: list[Literal['red', 'blue']] | None = None, limit: int = 5) -> Thing"
    )


def test_the_stub_is_a_module_with_the_types_that_tools_return(things: Registry) -> None:
    text = things.pyi(find_thing.server)
    defined = [n.name for n in ast.parse(text).body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    assert defined == ["Part", "Thing", "find_thing", "burn_thing", "things"]
    assert "    id: int  # its id" in text
    assert "    note: NotRequired[str]" in text
    assert "[critical] Burn a thing." in text


def test_a_definition_that_is_no_tool_is_refused_at_import() -> None:
    async def positional(ctx: ToolContext, order_id: int) -> Thing:
        raise NotImplementedError

    async def silent(ctx: ToolContext) -> None:
        raise NotImplementedError

    for wrong, told in ((positional, "keyword-only"), (silent, "what it returns")):
        with pytest.raises(TypeError, match=told):
            tool(effect="read")(wrong)


def test_two_tools_of_one_name_are_refused_with_both_owners() -> None:
    async def find_thing_too(ctx: ToolContext) -> Thing:
        raise NotImplementedError

    twin = tool(effect="read", name="find_thing")(find_thing_too)
    with pytest.raises(Collision, match=r"find_thing is defined twice: by .*\.find_thing and by .*find_thing_too"):
        Registry([find_thing, twin], {})


def test_an_unknown_tool_is_answered_with_the_likely_one(things: Registry) -> None:
    with pytest.raises(ToolNotFound, match=rf"Did you mean {find_thing.server}\.find_thing\?"):
        things.get("elsewhere.find_things")


def test_a_dispatchers_call_is_its_operations_call(things: Registry) -> None:
    name = f"{find_thing.server}.things"
    assert things.resolve(name, {"operation": "burn_thing", "arguments": {"thing_id": "3"}}) == (
        burn_thing,
        {"thing_id": 3},
    )
    assert things.get(name).effect == "critical"
    with pytest.raises(ToolInputError, match=r"arguments of burn_thing: unknown argument 'id'.*Did you mean thing_id"):
        things.resolve(name, {"operation": "burn_thing", "arguments": {"id": 3}})
    with pytest.raises(ToolInputError, match="find_thing"):
        things.resolve(name, {"operation": "find", "arguments": {}})


def test_the_index_holds_every_tool_and_every_error() -> None:
    registry = load_registry()
    index = json.loads(registry.index())
    listed = {f"{s['name']}.{t['name']}": t for s in index["servers"] for t in s["tools"]}
    assert listed.keys() == set(registry.names)
    parameters = listed["woocommerce.list_orders"]["parameters"]
    assert all(p.pop("description") for p in parameters[:2])
    assert parameters == [
        {"name": "customer_id", "required": True, "annotation": "int"},
        {"name": "status", "required": False, "annotation": "str", "default": "any"},
        {"name": "limit", "required": False, "annotation": "int", "default": 20},
    ]
    assert listed["woocommerce.list_orders"]["returns"] == "list[Order]"
    parents = {e["name"]: e["parent"] for e in index["errors"]}
    assert parents.keys() == {e.__name__ for e in ERRORS}
    assert parents["RateLimited"] == "ToolError"


def test_the_index_holds_no_logic_and_no_machine() -> None:
    text = load_registry().index().decode()
    assert not any(word in text for word in ("meta_data", "wp-json", "consumer", "SELECT", "/home", "file://"))


@pytest.mark.parametrize("server", ["catalog", "support", "woocommerce"])
def test_every_servers_stub_is_a_valid_module(server: str) -> None:
    tree = ast.parse(load_registry().pyi(server))
    assert {n.name for n in tree.body if isinstance(n, ast.FunctionDef)} == {
        t.name for t in load_registry().of_server(server)
    }


@pytest.mark.parametrize("each", list(load_registry()), ids=lambda t: t.qualified_name)
def test_every_tool_says_what_it_does_in_one_line_and_has_an_output_type(each: Tool) -> None:
    assert 10 < len(each.summary) <= 120
    assert each.summary.endswith((".", ":")) or each.operations
    assert ast.parse(f"def {each.signature}: ...")


def test_functions_for_direct_calling_lead_back_to_their_tools() -> None:
    registry = load_registry()
    for definition in registry.openai_tools():
        name = definition["function"]["name"]
        assert registry.from_function_name(name).qualified_name == name.replace("__", ".", 1)
        assert name.replace("_", "").isalnum()
        assert len(name) <= 64


def test_every_error_is_a_tool_error_of_the_table() -> None:
    assert all(issubclass(e, ToolError) for e in ERRORS)
