"""A checker reads what strangers write: it runs nothing of it, and cannot be kept busy, filled up or brought down."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from check_world import CheckWorld, check_world

from servers.registry import load_registry

GOOD = "from servers.woocommerce import lookup_order\nlookup_order(nr=3)"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckWorld]:
    with check_world(tmp_path_factory.mktemp("limits"), timeout_s=8.0) as made:
        made.portal.call(made.checker.warm, made.registry)
        yield made


HOSTILE = {
    "too large": "x = 1\n" * 20_000,
    "brackets without end": "(" * 60_000,
    "brackets": "[" * 5_000 + "]" * 5_000,
    "signs": "-" * 60_000 + "1",
    "dots": "a" + ".b" * 20_000,
    "lambdas": "lambda: " * 5_000 + "1",
    "sums": "+".join(["x"] * 30_000),
    "f-strings": "f'{" * 50 + "1" + "}'" * 50,
    "a type that doubles": "x0 = (1,)\n" + "\n".join(f"x{i + 1} = (x{i}, x{i}, [x{i}])" for i in range(60)),
    "quotes": '"' * 60_000,
    "magics": "%a\n" * 600,
    "lone surrogate": "x = '\\ud800'",
    "NUL": "x\0",
    "digits": "x = " + "9" * 5_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_made_to_break_a_checker_does_not(world: CheckWorld, kind: str) -> None:
    check = world.check(HOSTILE[kind])
    # stopped where Python itself would not take it, else run: with a note where it was given up
    assert all(finding.name in ("SyntaxError", "NameError") for finding in check.certain)
    assert world.check(GOOD).certain[0].name == "ToolInputError"


def test_a_checker_that_takes_too_long_is_given_up_and_replaced(tmp_path: Path) -> None:
    with check_world(tmp_path, timeout_s=60) as world:
        world.check(GOOD)
        (pid,) = world.checker.workers.pids
        os.kill(pid, signal.SIGSTOP)
        object.__setattr__(world.checker, "_settings", world.checker._settings.model_copy(update={"timeout_s": 0.3}))
        check = world.check(GOOD)
        assert check.note == "not checked: it took longer than 0.3 s"
        assert not check.stopped
        object.__setattr__(world.checker, "_settings", world.checker._settings.model_copy(update={"timeout_s": 60.0}))
        assert world.check(GOOD).stopped
        assert pid not in world.checker.workers.pids


def test_a_checker_that_dies_is_replaced(world: CheckWorld) -> None:
    world.check(GOOD)
    for pid in world.checker.workers.pids:
        os.kill(pid, signal.SIGKILL)
    assert "not checked" in world.check(GOOD).note
    assert world.check(GOOD).stopped


def test_nothing_that_is_checked_is_run(world: CheckWorld, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    touch = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    for code in (
        touch,
        f"!touch {trap}",
        f"%%bash\ntouch {trap}",
        f"def f(x={touch}): ...",
        f"class A(metaclass={touch}): ...",
        f"x: {touch} = 1",
        f"from servers.woocommerce import lookup_order\nlookup_order(order_id={touch})",
        f"%run {trap}",
    ):
        world.check(code)
    assert not trap.exists()


def test_a_checker_knows_no_secret_and_sees_no_module_of_the_gateways(world: CheckWorld) -> None:
    world.check(GOOD)
    (pid, *_) = world.checker.workers.pids
    names = {line.partition("=")[0] for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line}
    assert names <= {"PATH", "HOME", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}
    # what is imported from the gateway or its libraries is anything: the checker has looked at nothing there
    check = world.check("from gateway.settings import Settings\nimport pydantic\nSettings.nothing, pydantic.nothing")
    assert check.findings == ()


def test_a_cell_sees_nothing_of_the_one_that_was_checked_before(world: CheckWorld) -> None:
    world.check("secret_of_another = 'x'\nfrom servers.woocommerce import lookup_order")
    said = world.check("print(secret_of_another)\nlookup_order").certain
    assert {finding.name for finding in said} == {"NameError"}


def test_checkers_end_with_the_gateway(tmp_path: Path) -> None:
    with check_world(tmp_path, processes=2) as world:
        world.check(GOOD)
        pids = world.checker.workers.pids
        assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_advise_stops_nothing_and_off_is_silent(tmp_path: Path) -> None:
    with check_world(tmp_path, mode="advise") as world:
        check = world.check(GOOD)
        assert check.certain
        assert not check.stopped


# -- history --


def test_types_come_from_earlier_cells_as_far_as_they_hold(world: CheckWorld) -> None:
    history = world.ran(["from servers.woocommerce import lookup_order\no = lookup_order(order_id=1)"])
    assert world.check("lookup_order; o['totl']", ["o lookup_order"], history).stopped
    history.add("o = make()\n1 / 0", ok=False, changed=("o",))
    assert not world.check("lookup_order; o['totl']", ["o lookup_order"], history).stopped
    history.add("o = lookup_order(order_id=2)", ok=True, changed=("o",))
    assert world.check("lookup_order; o['totl']", ["o lookup_order"], history).stopped
    history.add("change()", ok=True, changed=("o",))
    assert not world.check("lookup_order; o['totl']", ["o lookup_order"], history).stopped


def test_a_long_history_is_forgotten_from_its_beginning(world: CheckWorld) -> None:
    code = "from servers.woocommerce import lookup_order\no = lookup_order(order_id=1)"
    history = world.ran([code])
    world.check("o", [code], history)
    for number in range(3):
        history.add(f"x{number} = {'1 + ' * 8_000}1", ok=True, changed=())
    assert sum(len(cell.code) for cell in history.earlier) <= 64 * 1024
    assert history.reaches_tools("lookup_order(order_id=1)")
    assert not world.check("o['totl']", ["o"], history).stopped


def test_only_what_may_call_a_tool_waits(world: CheckWorld) -> None:
    history = world.ran(())
    assert not history.reaches_tools("import math\nmath.pi")
    assert history.reaches_tools("import servers")
    code = (
        "from servers.woocommerce import lookup_order as get\ndef fetch(n):\n    return get(order_id=n)\nx = fetch(1)"
    )
    world.check(code, (), history)
    history.add(code, ok=True, changed=())
    assert history.reaches_tools("fetch(2)")
    assert history.reaches_tools("get")
    assert not history.reaches_tools("x['total'] + 'get_more'")


def test_stubs_are_written_once_for_equal_tools(world: CheckWorld, tmp_path: Path) -> None:
    from gateway.checking.stubs import make_stubs

    first = make_stubs(load_registry(), tmp_path)
    again = make_stubs(load_registry(), tmp_path)
    assert first.folder == again.folder
    assert len(list(tmp_path.iterdir())) == 1
