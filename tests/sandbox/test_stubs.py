"""Tools as a cell sees them. Each piece of code runs in a process that has the sandbox's folder and nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from door_double import Answer, DoorDouble, Refuse
from hypothesis import given
from hypothesis import strategies as st

from kernel_pool.sandbox.tool_index import decode, misuse
from servers.errors import ToolInputError
from servers.registry import load_registry

OpenDoor = Callable[[Answer], DoorDouble]

PYI = '''
"""Shop."""

from typing import Literal, NotRequired, TypedDict

class Order(TypedDict):
    """One order."""
    id: int
    total: str  # money
    note: NotRequired[str]

class Trap(TypedDict):
    id: __import__("pathlib").Path("TRAP").touch()

def lookup_order(*, order_id: str) -> Order: ...
'''


def entry(name: str, *parameters: dict[str, Any], returns: str = "Order", doc: str = "One order.") -> dict[str, Any]:
    return {"name": name, "signature": f"{name}(...) -> {returns}", "doc": doc, "effect": "read",
            "parameters": list(parameters), "returns": returns}  # fmt: skip


def parameter(name: str, annotation: str = "str", **more: Any) -> dict[str, Any]:
    return {"name": name, "required": "default" not in more, "annotation": annotation, **more}


def index(*tools: dict[str, Any], pyi: str = PYI) -> bytes:
    errors = [
        {"name": "ToolError", "parent": "Exception", "doc": "A tool call failed."},
        {"name": "ToolInputError", "parent": "ToolError", "doc": "Wrong arguments."},
        {"name": "UpstreamError", "parent": "ToolError", "doc": "The shop failed."},
        {"name": "RateLimited", "parent": "ToolError", "doc": None},
    ]
    shop = {"name": "shop", "doc": "The shop.", "pyi": pyi, "tools": list(tools or TOOLS)}
    return json.dumps({"version": 1, "errors": errors, "servers": [shop]}).encode()


TOOLS = (
    entry("lookup_order", parameter("order_id", "int | str"), parameter("full", "bool", default=True)),
    entry(
        "cancel_order",
        parameter("order_id", description="as the customer wrote it"),
        parameter("reason", 'Literal["a", "b"]', default="a"),
        returns="str",
    ),
    entry("everything", returns="list[Order]", doc="All.\n\nReally\x1b[31m all: \u202eno\u202c."),
)

START = """
import sys
sys.path.append(sys.argv[1])
from sandbox.stubs import install
install(index_path=sys.argv[2], broker_path=sys.argv[3])
from IPython.core.interactiveshell import InteractiveShell
def cell(code):
    return InteractiveShell.instance(colors="nocolor").run_cell(code)
"""


@pytest.fixture
def run(folder: Path) -> Callable[..., str]:
    """Run code; what it prints."""

    def run_code(code: str, content: bytes | None = None) -> str:
        path = folder / "tools.json"
        path.write_bytes(content or index())
        sandbox = Path(__file__).parents[2] / "kernel_pool"
        arguments = [sys.executable, "-I", "-c", START + code, str(sandbox), str(path), str(folder / "broker.sock")]
        environment = {"HOME": str(folder), "IPYTHONDIR": str(folder / "ipython")}
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run_code


Run = Callable[..., str]


def order(tool: str, args: dict[str, Any]) -> Any:
    return {"id": args["order_id"], "tool": tool, "args": args}


def test_a_tool_is_imported_and_called(run: Run, door: OpenDoor) -> None:
    opened = door(order)
    code = "from servers.shop import lookup_order\nr = lookup_order(order_id=3)\nprint(type(r), r['id'])"
    assert run(code) == "<class 'dict'> 3"
    assert opened.calls == [("shop.lookup_order", {"order_id": 3})]


def test_a_server_is_imported_under_another_name(run: Run, door: OpenDoor) -> None:
    door(order)
    assert run("import servers.shop as s\nprint(s.lookup_order(order_id=3)['id'])") == "3"
    assert run("import servers\nprint(servers.shop.lookup_order(order_id=3)['id'])") == "3"
    assert run("from servers.shop import *\nprint(lookup_order(order_id=3)['id'])") == "3"


def test_help_shows_signature_effect_and_description(run: Run) -> None:
    shown = run("from servers.shop import cancel_order\nhelp(cancel_order)")
    assert "in module servers.shop" in shown
    assert 'cancel_order(*, order_id: str, reason: Literal["a", "b"] = \'a\') -> str' in shown
    assert "[read] One order." in shown
    assert "order_id: as the customer wrote it" in shown


def test_the_signature_is_a_real_one(run: Run) -> None:
    code = "import inspect\nfrom servers.shop import lookup_order as f\nprint(inspect.signature(f))\nprint(f.__name__)"
    assert run(code) == "(*, order_id: int | str, full: bool = True) -> Order\nlookup_order"


def test_names_are_completed(run: Run) -> None:
    code = """
from IPython.core.completer import provisionalcompleter
cell("import servers, servers.shop as s")
def completed(text):
    with provisionalcompleter():
        found = InteractiveShell.instance().Completer.completions(text, len(text))
        return [one.text.removeprefix(".") for one in found]
for text in ("s.loo", "from servers.shop import can", "from servers.sh", "s.lookup_order(ord"):
    print(completed(text))
"""
    assert run(code).split("\n") == ["['lookup_order']", "['cancel_order']", "['servers.shop']", "['order_id=']"]


def test_what_a_description_holds_cannot_steer_a_terminal(run: Run) -> None:
    shown = run("from servers.shop import everything\nprint(ascii(everything.__doc__))")
    assert "Really" in shown
    assert "\\x1b" not in shown
    assert "\\u202e" not in shown


def test_a_type_of_the_stub_is_there_for_annotations(run: Run) -> None:
    code = "from servers.shop import Order\nprint(Order(id=1) == {'id': 1}, Order.__annotations__)"
    assert run(code) == "True {'id': int, 'total': str, 'note': NotRequired[str]}"


def test_text_of_a_stub_is_never_executed(run: Run, folder: Path) -> None:
    run("from servers.shop import Trap\nprint(Trap.__annotations__)")
    assert not (folder / "TRAP").exists()


def test_errors_are_real_exceptions_with_their_details(run: Run, door: OpenDoor) -> None:
    def refuse(tool: str, args: dict[str, Any]) -> Any:
        raise Refuse("RateLimited", "slow down", tool=tool, retryable=True, hint="Wait 2 s.", data={"retry_after": 2})

    door(refuse)
    code = """
from servers.errors import RateLimited, ToolError
from servers.shop import lookup_order
try:
    lookup_order(order_id=1)
except ToolError as e:
    print(type(e) is RateLimited, e.tool, e.retryable, e.hint, e.data, e.message, sep="|")
    print(e, e.__context__, e.__cause__)
"""
    assert run(code).split("\n") == [
        "True|shop.lookup_order|True|Wait 2 s.|{'retry_after': 2}|slow down",
        "slow down Wait 2 s. None None",
    ]


def test_an_error_can_be_pickled_and_raised_by_cells(run: Run) -> None:
    code = """
import pickle
from servers.errors import ToolInputError, ToolError
e = pickle.loads(pickle.dumps(ToolInputError("no")))
print(isinstance(e, ToolError), e, e.tool == "", e.retryable)
"""
    assert run(code) == "True no True False"


@pytest.mark.parametrize(
    "code",
    [
        "from servers.shop import lookup_order\nlookup_order(order=1)",
        "from servers.shop import lookup_order\nlookup_order(order_id=1)",
        "from servers.shop import lokup_order",
        "import servers.shpo",
        "import servers.shop as s\ns.lokup_order",
    ],
)
def test_a_traceback_has_the_cells_lines_and_none_of_ours(run: Run, code: str) -> None:
    shown = run(f"cell({code!r})")
    assert "Traceback" in shown
    assert "Cell In[1], line" in shown
    assert "sandbox" not in shown
    assert "stubs.py" not in shown


def test_positional_arguments_are_refused_with_the_keywords_to_write(run: Run) -> None:
    shown = run('cell(\'from servers.shop import cancel_order\\ncancel_order("W1", "b")\')')
    assert shown.endswith(
        "ToolInputError: cancel_order: arguments are given by keyword. Valid: order_id*, reason (* required). "
        "Write cancel_order(order_id='W1', reason='b')."
    )


def test_wrong_keywords_are_caught_without_the_broker(run: Run) -> None:
    shown = run("cell('from servers.shop import lookup_order\\nlookup_order(order=1)')")
    assert shown.endswith(
        "ToolInputError: lookup_order: unknown argument 'order'; missing argument 'order_id'. "
        "Valid: order_id*, full (* required). Did you mean order_id?"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from servers.shop import lokup_order", "has no tool 'lokup_order'. Did you mean lookup_order?"),
        ("from servers.shop import zzz", "no tool 'zzz'. Tools: lookup_order, cancel_order, everything."),
        ("import servers.shpo", "There is no servers.shpo. Did you mean shop? Servers: shop."),
        ("import servers.shop.lookup_order", "lookup_order is a function: from servers.shop import lookup_order"),
        ("import servers.shop as s\ns.lokup_order", "no tool 'lokup_order'. Did you mean lookup_order?"),
    ],
)
def test_a_wrong_name_gets_the_likely_one(run: Run, code: str, said: str) -> None:
    shown = run(f"try:\n    exec({code!r})\nexcept (ImportError, AttributeError) as e:\n    print(e)")
    assert said in shown


def test_an_interrupted_call_is_a_keyboard_interrupt(run: Run, door: OpenDoor) -> None:
    from door_double import SILENCE

    opened = door(lambda tool, args: SILENCE)
    code = """
import os, signal, threading
from servers.shop import lookup_order
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    lookup_order(order_id=1)
except KeyboardInterrupt as e:
    print(e)
"""
    assert run(code) == "interrupted while shop.lookup_order was under way"
    assert opened.cancelled.wait(10)


def test_search_and_describe_print(run: Run) -> None:
    assert run("import servers\nservers.search('cancel an order')").startswith("shop.cancel_order(...) -> str")
    assert "No tool has to do with 'zebra'." in run("import servers\nservers.search('zebra')")
    assert "[read] One order." in run("import servers\nservers.describe('shop.lookup_order')")
    assert "Did you mean shop.lookup_order?" in run("import servers\nservers.describe('shop.lokup_order')")


def test_a_tool_costs_nothing_before_it_is_asked_for(run: Run) -> None:
    many = index(*(entry(f"tool_{i}", parameter("a")) for i in range(10_000)))
    code = """
import servers.shop as s
print(sum(callable(v) and k[0] != "_" for k, v in vars(s).items()))
from servers.shop import tool_77
print(sum(callable(v) and k[0] != "_" for k, v in vars(s).items()), len(dir(s)) > 10_000)
"""
    assert run(code, many) == "0\n1 True"


def test_the_index_of_the_real_registry_is_read(run: Run) -> None:
    registry = load_registry()
    for tool in registry:
        if tool.server == "woocommerce":
            code = f"import inspect\nfrom servers.woocommerce import {tool.name} as f\nprint(inspect.signature(f))"
            break
    assert run(code, registry.index()) == tool.signature.removeprefix(tool.name)


REGISTRY = load_registry()
INDEX = decode(REGISTRY.index())


@given(st.data())
def test_wrong_names_are_told_in_the_brokers_words(data: st.DataObject) -> None:
    tool = data.draw(st.sampled_from([tool for tool in REGISTRY if not tool.operations]))
    names = [p.name for p in tool.parameters]
    near = st.sampled_from(names).map(lambda name: name.replace("_", "")) if names else st.nothing()
    args = dict.fromkeys(data.draw(st.sets(st.sampled_from(names or ["x"]) | near | st.text(max_size=70), max_size=4)))
    stub = INDEX.tool(tool.qualified_name)
    assert stub is not None
    found = misuse(stub, (), args)
    refused = refusal(lambda: tool.validate(args))
    if refused is None or not (refused.data["unknown"] or refused.data["missing"]):
        assert found is None
    elif not refused.data["invalid"]:  # values that do not fit are the broker's to name
        assert found is not None
        assert (found.message, found.data) == (refused.message, refused.data)


def refusal(check: Callable[[], object]) -> ToolInputError | None:
    try:
        check()
    except ToolInputError as error:
        return error
    return None
