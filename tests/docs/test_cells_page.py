"""The page on cells, run in one session; and what it says of errors, through a real kernel."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tickets import registry

from gateway.routes.models import Cell
from gateway.settings import CheckSettings
from gateway.testing import ToolSession, tool_session
from servers.errors import ERRORS

PAGE = (Path(__file__).parents[2] / "docs" / "cells.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, re.M | re.S)
RAISED = [*(cls.__name__ for cls in ERRORS if cls.__name__ != "OutputSchemaError"), "schema"]


@pytest.fixture(scope="module")
def session() -> Iterator[ToolSession]:
    with tool_session(registry=registry()) as tools:
        yield tools


def as_pattern(envelope: str) -> str:
    """`#` stands for a number, a line of `...` for some lines, a number of tokens for another."""
    text = re.escape(envelope.strip()).replace(r"\#\ ms", r"\d+ ms")
    return re.sub(r"cut\\ from\\ [\d,]+", r"cut\\ from\\ [\\d,]+", re.sub(r"\n\\\.\\\.\\\.", r"\n.*", text))


def test_every_example_comes_to_what_the_page_says(session: ToolSession) -> None:
    assert len(EXAMPLES) == 6
    for code, envelope in EXAMPLES:
        run = session.cell(code)
        assert run.check is not None
        assert not run.check.note
        assert re.fullmatch(as_pattern(envelope), run.envelope, re.S), f"{code}\n{run.envelope}"


def test_the_page_has_the_stubs_of_its_tools() -> None:
    stubs = registry().pyi("tickets").replace("'", '"')
    (shown,) = re.findall(r"^```pyi\n(.*?)^```$", PAGE, re.M | re.S)
    for line in shown.splitlines():
        assert line.removesuffix(" ...") in stubs


def test_what_http_has_of_a_check(session: ToolSession) -> None:
    session.cell("from servers.tickets import find_ticket")
    answer = Cell.of(session.cell("find_ticket(nr=7)"))
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
    assert answer.status == "error"
    assert answer.check is not None
    told = answer.check.model_dump()
    assert told.pop("ms") > 0
    assert told == json.loads(shown)


def test_the_figures_of_the_page_are_those_of_the_cells() -> None:
    cells = Path(__file__).parents[1] / "gateway" / "cells"
    mistaken = tomllib.loads((cells / "mistaken.toml").read_text())["cell"]
    right = tomllib.loads((cells / "right.toml").read_text())["session"]
    caught, page = sum(bool(cell["caught"]) for cell in mistaken), " ".join(PAGE.split())
    share = f"{100 * caught / len(mistaken):.0f} %"
    assert f"of {len(mistaken)} mistakes as models make them {caught} are found before the run ({share})" in page
    assert f"none of {sum(len(session['cells']) for session in right)} cells that are right" in page


def test_the_settings_of_the_page_are_there() -> None:
    assert set(re.findall(r"`check\.(\w+)`", PAGE)) <= set(CheckSettings.model_fields)


@pytest.mark.parametrize("how", RAISED)
def test_each_error_is_raised_in_the_cell_with_all_that_it_has(session: ToolSession, how: str) -> None:
    name = "OutputSchemaError" if how == "schema" else how
    run = session.cell(
        "import json\nfrom servers import errors\nfrom servers.tickets import fail\n"
        f"try:\n    fail(how={how!r})\n"
        f"except errors.{name} as error:\n"
        "    assert isinstance(error, errors.ToolError)\n"
        "    has = ('message', 'tool', 'retryable', 'hint', 'retry_after', 'data')\n"
        "    print(json.dumps([type(error).__name__, {name: getattr(error, name) for name in has}]))"
    )
    kind, has = json.loads(str(run.result.outputs[0]["text"]))
    assert kind == name
    assert has["tool"] == "tickets.fail"
    if how == "RateLimited":
        assert (has["retryable"], has["retry_after"]) == (True, 1.5)
    elif how == "schema":
        assert "does not fit the declared type Ticket" in has["message"]
    else:
        assert has == {
            "message": f"This is {how}.",
            "tool": "tickets.fail",
            "retryable": False,
            "hint": "Try otherwise.",
            "retry_after": None,
            "data": {"why": how},
        }


def test_all_errors_of_the_design_are_there(session: ToolSession) -> None:
    assert set(re.findall(r"`(\w+(?:Error|Found|Denied|Required|Limited|Exceeded))`", PAGE)) == {
        cls.__name__ for cls in ERRORS
    }


# -- the check in a session: what a checker alone cannot show --


def test_the_kernel_itself_says_which_names_there_are(session: ToolSession) -> None:
    session.cell("exec('hidden = 1')")
    run = session.cell("from servers.tickets import find_ticket\nhidden + 1")
    assert run.result.status == "ok"
    run = session.cell("from servers.tickets import find_ticket\nhiden + 1")
    assert run.check is not None
    assert run.check.stopped
    assert run.result.error is not None
    assert run.result.error.name == "NameError"


def test_a_variable_that_became_something_else_has_no_type(session: ToolSession) -> None:
    session.cell("from servers.tickets import find_ticket\nt = find_ticket(number=7)")
    assert session.cell("find_ticket; t['nr']").check.stopped  # type: ignore[union-attr]
    # by what no cell shows: the name is the namespace's, and the type would be the earlier one
    session.cell("globals()['t'] = {'nr': 1}")
    assert session.cell("find_ticket; t['nr']").result.status == "ok"


def test_a_stopped_cell_changes_nothing_and_is_not_run_by_restore(session: ToolSession) -> None:
    session.cell("from servers.tickets import close_ticket\nkept = 1")
    run = session.cell("kept = 2\nclose_ticket(number=7, reason='solved')\nclose_ticket(nummer=8)")
    assert run.check is not None
    assert run.check.stopped
    assert run.calls == ()
    assert "kept" not in session.cell("print(kept)").envelope.partition("vars:")[2]
    sessions = session.gateway.sessions
    again = session._portal.call(sessions.restore, session.session)
    assert run.cell not in {each.cell for each in again}
    assert "1" in session.cell("kept").envelope
    rows = session._portal.call(sessions.cells, session.session)
    assert next(row for row in rows if row.id == run.cell).status == "error"


def test_a_cell_out_of_reach_of_tools_does_not_wait(session: ToolSession) -> None:
    run = session.cell("undefined_here")
    assert run.check is not None
    assert not run.check.stopped
    assert run.result.execution_count is not None
