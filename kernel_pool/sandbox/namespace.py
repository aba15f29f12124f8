"""What the user's namespace holds, in a few words: asked for after each cell as a Jupyter user_expression.

Only new, changed and deleted names are told, for the reader has seen the others. Nothing of the user's is run: types
are looked at through `type` itself, built-in containers through their base class, and only plain scalars are shown by
value. Never raises; bounded in names, lengths and samples.
"""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

#: For execute_request's user_expressions, inside the sandbox, where this folder is the package `sandbox`.
EXPRESSION = "__import__('sandbox.namespace', fromlist=['']).changes()"

_NAMES = 5000  # looked at
_TOLD = 40  # told of each kind
_SAMPLE = 20  # elements of a container
_KEYS = 6
_TEXT = 60
_NAME = 80
#: ints beyond this many bits are told by their size: their decimal form is slow to make.
_BITS = 256

_type_name = type.__dict__["__name__"].__get__
_type_dict = type.__dict__["__dict__"].__get__
_type_mro = type.__dict__["__mro__"].__get__

#: name to (id of the object, what was told of it). Not the object: it would be kept in memory.
_told: dict[str, tuple[int, str]] = {}


class Changes:
    """Its repr is JSON: {"new": {name: summary}, "changed": {...}, "deleted": [...], "more": count}."""

    def __init__(self, data: Mapping[str, object]) -> None:
        self._text = json.dumps(data, ensure_ascii=True)

    def __repr__(self) -> str:
        return self._text


def look_expression(names: Sequence[str]) -> str:
    """For user_expressions as well: what `look` says of these names."""
    return f"__import__('sandbox.namespace', fromlist=['']).look({list(names)!r})"


def look(names: Sequence[str]) -> Changes:
    """{"missing": names that are not there, "changed": those whose values are others than were told last}."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return Changes({})
    return Changes(compare_names(shell.user_ns, _told, names))


def compare_names(
    namespace: Mapping[str, object], told: Mapping[str, tuple[int, str]], names: Sequence[str]
) -> dict[str, object]:
    """`look` in a namespace; changes nothing."""

    def now(name: str) -> tuple[int, str] | None:
        return (_identity(namespace[name]), describe(namespace[name])) if name in namespace else None

    return {
        "missing": [name for name in names if name not in namespace and not hasattr(builtins, name)],
        "changed": [name for name in names if name in told and told[name] != now(name)],
    }


def changes() -> Changes:
    """What changed since the last time this was asked, in the shell of this process."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return Changes({})
    return Changes(compare(shell.user_ns, shell.user_ns_hidden, _told))


def compare(
    namespace: Mapping[str, object], hidden: Mapping[str, object], told: dict[str, tuple[int, str]]
) -> dict[str, object]:
    """Changes of `namespace` against `told`, which is brought up to date."""
    now = {name: (_identity(value), describe(value)) for name, value in _visible(namespace, hidden)}
    new = {name: text for name, (_, text) in now.items() if name not in told}
    changed = {name: text for name, (identity, text) in now.items() if name in told and told[name] != (identity, text)}
    deleted = [name for name in told if name not in now]
    told.clear()
    told.update(now)
    more = sum(max(0, len(kind) - _TOLD) for kind in (new, changed, deleted))
    return {
        "new": dict(list(new.items())[:_TOLD]),
        "changed": dict(list(changed.items())[:_TOLD]),
        "deleted": deleted[:_TOLD],
        "more": more,
    }


def describe(value: object) -> str:
    """A value in a few words: its type, size, and what it holds. Never raises."""
    try:
        return _describe(value)
    except BaseException as error:
        # whatever a foreign type does, the cell is not to suffer; only a person's interrupt goes on
        if isinstance(error, KeyboardInterrupt):
            raise
        return "object"


def _visible(namespace: Mapping[str, object], hidden: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    seen = 0
    for name, value in list(namespace.items()):
        if type(name) is not str or name.startswith("_") or len(name) > _NAME:
            continue
        if name in hidden and hidden[name] is value:
            continue
        if _is(value, ModuleType) or _imported(value):
            continue
        seen += 1
        if seen > _NAMES:
            return
        yield name, value


def _imported(value: object) -> bool:
    """Functions and classes that the user has not made himself: an import that stands in the cell anyway."""
    if _is(value, FunctionType):
        return bool(FunctionType.__getattribute__(value, "__module__") != "__main__")
    if _is(value, type):
        members: Mapping[str, object] = _type_dict(value)
        return members.get("__module__") != "__main__"
    return _is(value, BuiltinFunctionType)


def _is(value: object, kind: type) -> bool:
    """isinstance by the object's true type: `__class__` may lie."""
    return bool(kind in _type_mro(type(value)))


def _identity(value: object) -> int:
    """Same for equal scalars, which are often made anew without having changed."""
    return 0 if type(value) in (int, float, bool, str, bytes, type(None)) else id(value)


def _describe(value: Any) -> str:
    kind = type(value)
    if value is None or kind is bool:
        return repr(value)
    if kind in (int, float, complex):
        return _number(value)
    if kind in (str, bytes):
        return _text(value)
    if kind in (list, tuple, set, frozenset):
        return _sequence(value)
    if kind is dict:
        return f"dict({len(value)}){_keys(value)}"
    if _is(value, FunctionType):
        return _function(value)
    if _is(value, type):
        return "class"
    return _table(value) or _sized(value)


def _number(value: Any) -> str:
    if type(value) is int and value.bit_length() > _BITS:
        return f"int of {value.bit_length()} bits"
    return f"{_type_name(type(value))} = {value!r}"


def _text(value: Any) -> str:
    name = _type_name(type(value))
    if len(value) <= _TEXT:
        return f"{name} = {value!r}"
    return f"{name}({len(value)}) = {value[:_TEXT]!r}..."


def _sequence(value: Any) -> str:
    sample = [item for item, _ in zip(value, range(_SAMPLE), strict=False)]
    kinds = list(dict.fromkeys(_type_name(type(item)) for item in sample))
    inside = f"[{kinds[0]}]" if len(kinds) == 1 else ""
    keys = _keys(sample[0]) if kinds == ["dict"] and type(sample[0]) is dict else ""
    return f"{_type_name(type(value))}{inside}({len(value)}){keys}"


def _keys(value: Any) -> str:
    names = [key for key, _ in zip(value, range(_KEYS), strict=False) if type(key) is str]
    if not names:
        return ""
    more = ", ..." if len(value) > len(names) else ""
    return " {" + ", ".join(name[:30] for name in names) + more + "}"


def _function(value: Any) -> str:
    code = value.__code__
    names = code.co_varnames[: min(code.co_argcount + code.co_kwonlyargcount, 8)]
    return f"def ({', '.join(names)})"


def _table(value: object) -> str:
    """pandas, numpy and pyarrow by their own, exact types."""
    pandas, numpy, arrow = (sys.modules.get(name) for name in ("pandas", "numpy", "pyarrow"))
    kind: Any = type(value)
    known: Any = value
    if pandas is not None and kind is pandas.DataFrame:
        columns = [str(column)[:30] for column in known.columns[:_KEYS] if type(column) in (str, int)]
        more = ", ..." if len(known.columns) > len(columns) else ""
        return f"DataFrame({known.shape[0]} x {known.shape[1]}) [{', '.join(columns)}{more}]"
    if pandas is not None and kind is pandas.Series:
        return f"Series({known.shape[0]}) of {known.dtype}"
    if numpy is not None and kind is numpy.ndarray:
        return f"ndarray{tuple(known.shape)} of {known.dtype}"
    if arrow is not None and kind is arrow.Table:
        return f"Table({known.num_rows} x {known.num_columns})"
    return ""


def _sized(value: object) -> str:
    """Any other object by its type's name; subclasses of built-in containers with their true length."""
    name = str(_type_name(type(value)))[:_TEXT]
    for base in (list, tuple, dict, set, frozenset, str, bytes):
        if _is(value, base):
            length: int = base.__len__(value)  # type: ignore[arg-type]
            return f"{name}({length})"
    return name
