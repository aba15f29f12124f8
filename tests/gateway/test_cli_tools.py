"""`omniops tools`, and the kit that authors test with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import servers
from gateway.commands.new_server import ServerExists, make_server
from gateway.commands.tools import app
from gateway.settings import TenantSettings
from gateway.testing import CellFailed, ToolSession, tool_session
from servers.errors import ApprovalRequired, ToolDenied, ToolError
from servers.finding.finder import Finders
from servers.lint import problems
from servers.registry import Collision, load_registry


def omniops(*arguments: str) -> tuple[int, str]:
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, list(arguments))
    return done.exit_code, done.output


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for servers; what is loaded from it is forgotten again."""
    monkeypatch.setattr(servers, "__path__", list(servers.__path__))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tools"


def test_tools_are_listed_by_server_role_and_effect() -> None:
    status, printed = omniops("list", "woocommerce", "--role", "agent", "--effect", "write")
    assert status == 0
    assert "woocommerce.cancel_order" in printed
    assert "woocommerce.refund_order" not in printed
    assert "lookup_order" not in printed
    assert "support.hand_over" in omniops("list")[1]


def test_an_unknown_server_is_told_with_the_likely_one() -> None:
    status, printed = omniops("list", "woocomerce")
    assert (status, printed) == (1, "omniops: There is no server 'woocomerce'. Did you mean woocommerce?\n")


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("refund an order", "woocommerce.refund_order"),
        ("lookup order", "woocommerce.lookup_order"),
        ("coupons", "woocommerce.list_coupons"),
        ("hand over", "support.hand_over"),
        ("sales report", "woocommerce.sales_report"),
        ("reimburse a shopper's purchase", "woocommerce.refund_order"),
    ],
)
def test_a_search_finds_it_first(words: str, first: str) -> None:
    best = Finders().of(load_registry()).find(words, limit=5)
    assert first in [tool.qualified_name for tool in best]
    assert first in omniops("search", *words.split(), "--limit", "5")[1]


def test_a_search_for_nothing_says_so() -> None:
    assert omniops("search", "zeppelin") == (1, "omniops: No tool has to do with 'zeppelin'.\n")


def test_a_tool_is_shown_with_its_types_and_who_may_call_it() -> None:
    status, printed = omniops("show", "woocommerce.refund_order")
    assert status == 0
    assert "class Refund(TypedDict):" in printed
    assert "def refund_order(*, order_id: int | str, amount: str" in printed
    assert "# for        agent, operator\n" in printed
    assert "# undone by  delete_refund" in printed
    schema = json.loads(omniops("show", "woocommerce.refund_order", "--schema")[1])
    assert schema["required"] == ["order_id", "amount"]
    assert omniops("show", "woocommerce.refund") == (
        1,
        "omniops: There is no tool 'woocommerce.refund'. Did you mean woocommerce.refund_order?\n",
    )


def test_our_own_tools_are_well_made() -> None:
    assert {tool.qualified_name: problems(tool) for tool in load_registry() if problems(tool)} == {}
    assert omniops("check")[0] == 0


BAD = '''
from typing import Any
from servers.context import ToolContext
from servers.tool import tool

@tool(effect="write", roles=())
async def get_Everything(ctx: ToolContext, *, tenant: str, what: dict, many: list[int]) -> Any:
    """everything"""

@tool(effect="read", revert="nothing")
async def delete_all(ctx: ToolContext) -> dict[str, Any]:
    """Delete all that there is"""
'''


def test_what_is_badly_made_is_told(apart: Path) -> None:
    (apart / "bad").mkdir(parents=True)
    (apart / "bad" / "__init__.py").write_text('"""Bad."""')
    (apart / "bad" / "tools.py").write_text(BAD)
    status, printed = omniops("check", "bad", "--dir", str(apart))
    assert status == 1
    for told in (
        "bad.get_Everything: its name is not words in lower case",
        "bad.get_Everything: the parameter 'tenant' is no argument",
        "bad.get_Everything: the first line of its docstring does not say",
        "bad.get_Everything: no role may call it",
        "bad.get_Everything: it is called get_..., yet its effect is write",
        "bad.get_Everything: the parameter tenant has no bound",
        "bad.get_Everything: the parameter many has no bound",
        "bad.get_Everything: the parameter what is or holds a bare dict",
        "bad.get_Everything: its result is or holds a bare Any",
        "bad.delete_all: the first line of its docstring is no sentence",
        "bad.delete_all: it is called delete_..., yet its effect is read",
        "bad.delete_all: it deletes, so a person should be asked",
        "bad.delete_all: it changes nothing, so nothing undoes it",
        "bad.delete_all: its result is or holds a bare Any",
    ):
        assert told in printed


def test_a_server_of_the_products_name_is_a_collision(apart: Path) -> None:
    (apart / "woocommerce").mkdir(parents=True)
    (apart / "woocommerce" / "__init__.py").touch()
    with pytest.raises(Collision, match=r"Both .* have a server 'woocommerce': rename yours"):
        load_registry(apart)
    assert omniops("list", "--dir", str(apart))[0] == 1
    assert omniops("list", "--dir", str(apart / "nowhere")) == (
        1,
        f"omniops: There is no folder {apart / 'nowhere'} with tools.\n",
    )


@pytest.mark.parametrize("name", ["2x", "Weather", "a-b", "class", "..", "a/b", "", "woocommerce", "errors"])
def test_a_name_that_is_taken_or_none_makes_nothing(name: str, apart: Path) -> None:
    with pytest.raises(ServerExists):
        make_server(apart, name)
    assert not apart.exists()


def test_a_server_is_not_made_twice(apart: Path) -> None:
    assert omniops("new", "weather")[0] == 0
    before = (apart / "weather" / "tools.py").read_text()
    status, printed = omniops("new", "weather")
    assert (status, "There is tools/weather already." in printed) == (1, True)
    assert (apart / "weather" / "tools.py").read_text() == before


@pytest.fixture(scope="module")
def analyst() -> Iterator[ToolSession]:
    with tool_session(role="analyst") as session:
        yield session


def test_the_kit_raises_what_the_cell_would_catch(analyst: ToolSession) -> None:
    with pytest.raises(ToolDenied, match="No store is configured"):
        analyst.call("woocommerce.count_orders")
    with pytest.raises(ToolDenied, match="not for a session of role 'analyst'"):
        analyst.call("woocommerce.set_stock", product_id=1, quantity=1)
    with pytest.raises(ToolError, match="unknown argument 'state'"):
        analyst.call("woocommerce.count_orders", state="x")
    with pytest.raises(CellFailed, match="no tool 'fly'"):
        analyst.call("woocommerce.fly")


def test_the_kits_cells_keep_their_variables(analyst: ToolSession) -> None:
    analyst.cell("x = 20")
    assert "value:  22" in analyst.cell("x + 2").envelope


def test_what_is_critical_can_be_tried_as_if_it_were_approved() -> None:
    hook = {"topic": "order.updated", "delivery_url": "https://example.com/orders"}
    with tool_session() as session, pytest.raises(ApprovalRequired):
        session.call("woocommerce.create_webhook", **hook)
    with tool_session(approved=True) as session, pytest.raises(ToolDenied, match="No store is configured"):
        session.call("woocommerce.create_webhook", **hook)


TABLES = '''
from collections.abc import AsyncIterator
from datetime import date
from typing import TypedDict

from servers.context import ToolContext
from servers.table import Table
from servers.tool import EVERYBODY, tool


class Day(TypedDict):
    day: date
    rain: float | None


@tool(effect="read", roles=EVERYBODY, credentials=("station_key",))
async def list_days(ctx: ToolContext) -> Table[Day]:
    """The days of a station."""
    assert ctx.credentials["station_key"] == "a-key-of-the-station"
    return Table([{"day": date(2026, 1, 2), "rain": None}, {"day": date(2026, 1, 3), "rain": 1.5}])


@tool(effect="read", roles=EVERYBODY)
async def stream_days(ctx: ToolContext) -> AsyncIterator[list[int]]:
    """The days, by parts."""
    yield [1, 2]
    yield [3]
'''


def test_the_kit_gives_tables_as_rows_and_streams_as_parts_to_whom_they_are_for(apart: Path) -> None:
    (apart / "stations").mkdir(parents=True)
    (apart / "stations" / "__init__.py").write_text('"""Stations."""')
    (apart / "stations" / "tools.py").write_text(TABLES)
    others = {"rival": TenantSettings()}
    with tool_session(apart, credentials={"station_key": "a-key-of-the-station"}, tenants=others) as tools:
        first, second = tools.call("stations.list_days")
        assert (first["day"][:10], first["rain"], second["rain"]) == ("2026-01-02", None, 1.5)
        assert tools.call("stations.stream_days") == [[1, 2], [3]]
        rival = tools.another(tenant="rival", role="agent")
        assert rival.call("stations.stream_days") == [[1, 2], [3]]
        with pytest.raises(ToolDenied, match="'rival' has no credential 'station_key'"):
            rival.call("stations.list_days")
        with pytest.raises(ValueError, match="no tenant 'nobody'"):
            tools.another(tenant="nobody")
