"""Other people's words cannot leave the places that are for them: docstrings, comments, names, cells of tables."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
from foreign_world import hidden, type_errors, undeclared
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kernel_pool.sandbox.tool_index import decode
from servers.brief import brief
from servers.foreign.record import Definition
from servers.foreign.settling import settle
from servers.foreign.tool import ForeignToolError, foreign_tool
from servers.foreign.words import docstring, one_line, prose, titled
from servers.reference import page, table
from servers.registry import Registry
from servers.rendering import pyi
from servers.tool import Tool

ATTACKS = (
    '"""\nimport os; os.system("id")\n"""',
    "'''\nimport os\n'''",
    '\\"""; import os; """',
    '\\\\"""',
    'ends with a quote"',
    "ends with a backslash\\",
    "\\N{DIGIT ONE} \\x00 \\u202e \\",
    "\x00\x07\x1b[31mred\x1b[0m\x1b]8;;http://evil\x1b\\",
    "\u202egnp.exe\u2066\u2069\u200b\u200d\ufeff\u00ad",
    "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029import os",
    "\ud800 alone",
    "\U000e0041\U000e0042 tags \ufe0f\ufe01 \u3164",
    "Z" + "\u0301" * 500,
    "x: int\n    import os  # ",
    "class Evil(TypedDict):\n    x: int\n",
    "] | __import__('os').system('id') | Literal[",
    "str = __import__('os').system('id')",
    "| a | b |\n|---|---|\n<script>alert(1)</script> [x](javascript:alert(1)) ![](http://evil/p.png)",
    "{0} {self} %s %(x)s ${HOME} $(id) `id`",
    "None",
    "__class__",
    "__debug__",
    "\ufb01",
    "",
    " ",
    "\u4f60\u597d",
    "a" * 5_000,
)

texts = st.one_of(
    st.sampled_from(ATTACKS), st.text(max_size=60), st.text(alphabet="\"'\\\n#{}[]()\u202e\x00 ab_", max_size=30)
)
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(st.sampled_from(("object", "array", "string", "integer", "number", "null")), texts),
            "title": texts,
            "description": texts,
            "default": st.one_of(plain, st.lists(plain, max_size=2), st.dictionaries(texts, plain, max_size=2)),
            "enum": st.lists(plain, max_size=4),
            "pattern": texts,
            "properties": st.dictionaries(texts, inner, max_size=4),
            "required": st.lists(texts, max_size=2),
            "items": inner,
            "anyOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=3),
            "additionalProperties": inner,
            "$ref": st.sampled_from(("#", "#/properties/a", "#/$defs/A", "http://evil/", "file:///etc/passwd")),
            "$defs": st.dictionaries(st.one_of(st.just("A"), texts), inner, max_size=2),
        },
    )


schemas = st.recursive(st.one_of(st.booleans(), _schemas(st.booleans())), _schemas, max_leaves=12)


async def call(ctx: object, args: dict[str, Any]) -> Any:
    return args


def tools_of(*definitions: Definition) -> tuple[Tool, ...]:
    made, refused = [], []
    for definition in definitions:
        try:
            made.append(foreign_tool("evil", definition, call=call))
        except ForeignToolError as error:
            refused.append(str(error))  # it may be shown in a terminal
    settled = settle(made)
    assert not hidden("".join([*refused, *settled.problems]))
    return settled.tools


def check_surfaces(tools: tuple[Tool, ...], doc: str) -> None:
    registry = Registry(tools, {"evil": doc})
    text = registry.pyi("evil")
    assert undeclared(text, tools) == []
    assert not hidden(text)
    server = decode(registry.index()).servers[0]  # as a kernel reads it
    for tool in server.tools:
        assert not hidden(tool.text)
        assert not hidden(tool.signature)
        assert "\n" not in tool.signature
        assert "\n" not in tool.summary
    for name in server.type_names:
        assert server.typed_dict(name).__name__ == name
    prompt = brief(tools)
    assert not hidden(prompt)
    assert [line for line in prompt.splitlines() if line.startswith("#")] == ["# servers.evil"] * bool(tools)
    rows = table(registry, "evil").splitlines()
    assert len(rows) == 2 + len(tools)
    assert all(row.startswith("| ") and row.endswith(" |") for row in rows[2:])
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page(registry, "evil"))
    assert set(re.findall(r"<(\w+)", html)) <= {
        "h1",
        "h2",
        "p",
        "code",
        "pre",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert html.count("<h1>") == 1
    assert html.count("<table>") == 1 + sum(bool(tool.parameters) for tool in tools)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=texts, description=texts, arguments=schemas, result=st.one_of(st.none(), schemas), server=texts)
@example("x", ATTACKS[0], {"properties": {a: {"description": a, "enum": [a]} for a in ATTACKS[:12]}}, None, ATTACKS[0])
@example("x", "", {"properties": {"o": {"properties": {a: {"default": a} for a in ATTACKS}, "title": "str"}}}, True, "")
def test_stub_has_only_what_is_declared(name: str, description: str, arguments: Any, result: Any, server: str) -> None:
    if isinstance(arguments, dict):
        arguments = arguments | {"type": "object"}
    check_surfaces(tools_of(Definition(name, description, arguments, result, {"title": description})), server)


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_attack_in_every_place(attack: str, tmp_path: Any) -> None:
    nested = {"type": "object", "title": attack, "description": attack, "properties": {attack: {"type": "string"}}}
    properties = {
        attack: {"type": "string", "description": attack, "default": attack, "enum": [attack, "b"]},
        "nested": {"$ref": "#/$defs/X"},
        "list": {"type": "array", "items": nested, "default": [attack]},
        "map": {"type": "object", "additionalProperties": nested, "default": {attack: attack}},
    }
    arguments = {
        "type": "object",
        "properties": properties,
        "required": [attack],
        "$defs": {"X": nested, attack: nested},
    }
    tools = tools_of(Definition(attack, attack, arguments, nested), Definition(f"b{attack[:50]}", "", {}, {}))
    check_surfaces(tools, attack)
    (tmp_path / "evil.pyi").write_text(pyi(attack, tools))
    assert type_errors(tmp_path) == ""


@given(texts)
@example('a\n"""')
@example('"')
@example("\\")
def test_docstring_is_the_text_and_nothing_else(text: str) -> None:
    kept = prose(text, 4_000)
    parsed = ast.parse(f"def f():\n    {docstring(kept)}")
    (function,) = parsed.body
    assert isinstance(function, ast.FunctionDef)
    assert len(function.body) == 1
    said = ast.get_docstring(function)
    assert said is not None
    assert said.split() == kept.split()


@given(texts, st.integers(1, 200))
def test_words_are_bounded_and_visible(text: str, limit: int) -> None:
    assert len(prose(text, limit)) <= limit
    assert len(one_line(text, limit)) <= limit
    assert not hidden(prose(text, limit))
    assert "\n" not in one_line(text, limit)
    first = titled(text, 4_000).partition("\n")[0]
    assert len(first) <= 120
