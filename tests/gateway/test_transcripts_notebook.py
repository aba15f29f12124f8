"""A session as a notebook: valid, readable in Jupyter, safe whatever strangers put in, and without secrets."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import nbformat
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbconvert import HTMLExporter

from gateway.broker.scrub import Scrubber
from gateway.transcripts.notebook import DirectStep, Header, Said, notebook, quoted, unquoted
from gateway.types import CallRecord, CellRun
from kernel_pool.types import CellResult

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
HEADER = Header("s1", "shop", "agent", START, title="Where is my order?")


def call(**changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "session": "s1",
        "cell": "c1",
        "tool": "woocommerce.cancel_order",
        "args": {"order_id": "#W1", "reason": "no longer needed"},
        "occurrence": 0,
        "effect": "write",
        "state": "applied",
        "replayed": False,
        "started": START,
        "ended": START + timedelta(milliseconds=12),
    }
    return CallRecord(**(values | changes))


def run(
    *, cell: str = "c1", outputs: tuple[Any, ...] = (), calls: tuple[CallRecord, ...] = (), **result: Any
) -> CellRun:
    values: dict[str, Any] = {"status": "ok", "execution_count": 1, "error": None, "started": START}
    done = CellResult(**(values | {"ended": START + timedelta(seconds=1), "outputs": outputs} | result))
    return CellRun("s1", cell, 1, "print(1)", done, calls, "status: ok", 3)


def valid(entries: list[Any], redact: Any = str) -> dict[str, Any]:
    """The notebook, written, read back and validated as Jupyter would."""
    text = orjson.dumps(notebook(HEADER, entries, redact)).decode()
    node = nbformat.reads(text, as_version=4)
    nbformat.validate(node)
    return json.loads(text)  # type: ignore[no-any-return]


def test_a_conversation_becomes_markdown_and_code_cells_in_order() -> None:
    stream = {"output_type": "stream", "name": "stdout", "text": "1\n"}
    node = valid(
        [
            Said("m1", "customer", "Cancel #W1", START),
            run(outputs=(stream,), calls=(call(),)),
            Said("m2", "agent", "Done.", START, {"input": 10}),
        ]
    )
    kinds = [cell["cell_type"] for cell in node["cells"]]
    assert kinds == ["markdown", "code", "markdown"]
    code = node["cells"][1]
    assert code["outputs"] == [stream]
    assert code["metadata"]["execution"] == {
        "iopub.execute_input": "2025-03-01T12:00:00.000000Z",
        "shell.execute_reply": "2025-03-01T12:00:01.000000Z",
        "iopub.status.idle": "2025-03-01T12:00:01.000000Z",
    }
    [recorded] = code["metadata"]["omniops"]["calls"]
    assert (recorded["tool"], recorded["state"], recorded["ms"]) == ("woocommerce.cancel_order", "applied", 12.0)
    assert recorded["args"] == {"order_id": "#W1", "reason": "no longer needed"}
    assert node["cells"][2]["metadata"]["omniops"]["usage"] == {"input": 10}


def test_a_cell_that_ran_again_keeps_its_place_and_its_earlier_run() -> None:
    node = valid([run(status="dead", calls=(call(),)), run(cell="c2"), run(calls=(call(replayed=True),))])
    assert [cell["id"] for cell in node["cells"]] == ["c1", "c2"]
    [earlier] = node["cells"][0]["metadata"]["omniops"]["earlier_runs"]
    assert earlier["status"] == "dead"
    assert earlier["calls"][0]["replayed"] is False


def test_direct_calls_are_a_cell_too() -> None:
    node = valid([DirectStep("direct-1", (call(args={"a": "x\ny"}, result={"id": 1}),), START, START)])
    assert all(line.startswith("#") for line in node["cells"][0]["source"].splitlines())
    assert node["cells"][0]["outputs"][0]["text"] == '{"id":1}'
    assert len(node["cells"][0]["metadata"]["omniops"]["calls"]) == 1


HOSTILE: list[Any] = [
    {"output_type": "stream", "name": "stdout", "text": "\ud800 lone"},
    {"output_type": "stream", "name": 5, "text": ["a", 7]},
    {"output_type": "stream"},
    {"output_type": "execute_result", "data": {"text/plain": {"a": 1}}, "metadata": 3, "execution_count": -1},
    {"output_type": "display_data", "data": {"application/json": [math.nan, math.inf, 10**400, -(2**60)]}},
    {"output_type": "display_data", "data": {"application/vnd.x+json": {"k\udfff": {"deep": [[[None]]]}}}},
    {"output_type": "error", "ename": None, "evalue": "\udc00", "traceback": "no list"},
    {"output_type": "error", "traceback": [b"bytes", 1]},
    {"output_type": "update_display_data"},
    {},
]


@pytest.mark.parametrize("output", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_a_kernel_sends_the_notebook_is_valid(output: Any) -> None:
    valid([run(outputs=(output,))])


def test_what_is_nested_without_end_is_cut() -> None:
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    text = json.dumps(valid([run(outputs=({"output_type": "display_data", "data": {"application/json": deep}},))]))
    assert "nested too deep" in text


def test_arguments_that_are_huge_are_cut() -> None:
    node = valid([run(calls=(call(args={"text": "x" * 1_000_000}),))])
    assert node["cells"][0]["metadata"]["omniops"]["calls"][0]["args"]["bytes"] > 1_000_000
    assert len(json.dumps(node)) < 50_000


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)


@given(
    data=st.dictionaries(st.sampled_from(["text/plain", "application/json", "image/png", "x"]), JSONISH), args=JSONISH
)
def test_any_mime_bundle_and_arguments_are_valid(data: Any, args: Any) -> None:
    output = {"output_type": "display_data", "data": data, "metadata": {"m": args}}
    valid([run(outputs=(output,), calls=(call(args={"a": args}),))])


def test_secrets_are_struck_out_everywhere() -> None:
    secret = "cs_0123456789abcdef"
    error = {"type": "UpstreamError", "message": f"GET /?consumer_secret={secret}", "hint": secret}
    entries = [
        Said("m1", "customer", secret, START, {"x": secret}),
        run(
            outputs=(
                {"output_type": "stream", "name": "stdout", "text": secret},
                {"output_type": "error", "ename": "E", "evalue": secret, "traceback": [secret]},
                {"output_type": "display_data", "data": {"application/json": {secret: [secret]}, "text/html": secret}},
            ),
            calls=(call(args={"k": secret}, error=error, state="failed"),),
            reason=secret,
        ),
        DirectStep("d", (call(error=error), call(args={"a": secret}, result=[secret])), START, START),
    ]
    assert secret in json.dumps(valid(entries))
    assert secret not in json.dumps(valid(entries, Scrubber([secret]).known))


def test_it_converts_to_html_and_a_customers_markup_stays_text() -> None:
    attack = "<script>alert(1)</script> ![x](https://evil.example/p.png) [y](javascript:z) **bold** $x$"
    text = json.dumps(notebook(HEADER, [Said("m1", "customer", attack, START), run(calls=(call(),))]))
    html, _ = HTMLExporter().from_notebook_node(nbformat.reads(text, as_version=4))
    body = html[html.index("<body") :]
    assert "print" in body
    assert "<script>alert(1)" not in body
    assert 'src="https://evil.example' not in body
    assert 'href="javascript:' not in body
    assert "<strong>bold</strong>" not in body


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))))
def test_a_quoted_message_can_be_read_back(text: str) -> None:
    assert unquoted(f"**Customer**\n\n{quoted(text)}") == text
