"""What the namespace summary tells, and that it runs nothing of the user's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_pool.sandbox.namespace import Changes, compare, describe


def changes(namespace: dict[str, Any], told: dict[str, tuple[int, str]]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(repr(Changes(compare(namespace, {}, told))))
    return result


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4711, "int = 4711"),
        (None, "None"),
        ("abc", "str = 'abc'"),
        ("x" * 100, f"str(100) = '{'x' * 60}'..."),
        pytest.param(1 << 100_000, "int of 100001 bits", id="huge int"),
        ([{"id": 1, "total": "2"}] * 3, "list[dict](3) {id, total}"),
        ([1, "a"], "list(2)"),
        ({"a": 1, 2: 3}, "dict(2) {a, ...}"),
        (pd.DataFrame({"a": [1], "b": [2]}), "DataFrame(1 x 2) [a, b]"),
        (np.zeros((2, 3)), "ndarray(2, 3) of float64"),
    ],
)
def test_values_are_told_by_type_size_and_keys(value: object, text: str) -> None:
    assert describe(value) == text


def test_only_what_changed_is_told() -> None:
    told: dict[str, tuple[int, str]] = {}
    orders = [1]
    assert changes({"orders": orders, "n": 1}, told)["new"] == {"orders": "list[int](1)", "n": "int = 1"}
    orders.append(2)
    second = changes({"orders": orders}, told)
    assert second == {"new": {}, "changed": {"orders": "list[int](2)"}, "deleted": ["n"], "more": 0}
    assert changes({"orders": orders}, told) == {"new": {}, "changed": {}, "deleted": [], "more": 0}


def test_an_equal_looking_new_object_counts_as_changed() -> None:
    told: dict[str, tuple[int, str]] = {}
    changes({"a": [1]}, told)
    assert changes({"a": [2]}, told)["changed"] == {"a": "list[int](1)"}


def test_modules_imports_and_private_names_are_left_out() -> None:
    assert changes({"json": json, "loads": json.loads, "_x": 1, "DataFrame": pd.DataFrame}, {})["new"] == {}


def test_functions_and_classes_of_the_user_are_told() -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(a, *, b=1): ...\nclass C: ...", scope)
    assert changes({"f": scope["f"], "C": scope["C"]}, {})["new"] == {"f": "def (a, b)", "C": "class"}


class Hostile(type):
    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError(f"metaclass was asked for {name}")


def test_nothing_of_the_user_is_run() -> None:
    class Trap(list[int], metaclass=Hostile):
        def __repr__(self) -> str:
            raise AssertionError("repr")

        def __len__(self) -> int:
            raise AssertionError("len")

        def __iter__(self) -> Any:
            raise AssertionError("iter")

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    assert describe(Trap([1, 2])) == "Trap(2)"
    assert describe([Trap()]) == "list[Trap](1)"
    assert changes({"t": Trap(), "T": Trap}, {})["new"] == {"t": "Trap(0)"}


def test_the_number_of_names_told_is_bounded() -> None:
    result = changes({f"v{i}": i for i in range(10_000)}, {})
    assert len(result["new"]) == 40
    assert result["more"] == 5000 - 40


def test_lone_surrogates_leave_valid_json() -> None:
    assert changes({"s": "\ud800"}, {})["new"]["s"] == "str = '\\ud800'"
