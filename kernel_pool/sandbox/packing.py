"""Messages as JSON: fast, whatever is in them, and in no more memory than they need.

orjson reserves eight bytes for each character of a string and keeps what it reserved. A kernel has a limit on its
memory, and orjson crashes where that is reached. So long strings are packed by the standard library, which measures
first, and what orjson made is kept as a copy of its true size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
from jupyter_client.jsonutil import json_default

#: Largest content of one message, bytes. Larger ones are cut down here; the gateway refuses much larger ones.
MAX_MESSAGE = 16 * 1024 * 1024

#: A string longer than this is cut when its message is too large.
_CUT = 64 * 1024

#: Strings from this length on are not for orjson; and from so many bytes on a message is copied.
_LONG = 256 * 1024
_COPIED = 4096

_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def pack(value: object) -> bytes:
    """JSON of `value`. NaN becomes null, lone surrogates are escaped, unknown objects become their repr."""
    try:
        packed = orjson.dumps(value, option=_OPTIONS, default=_plain)
    except (TypeError, RecursionError):
        packed = _pack_odd(value)
    return packed if len(packed) < _COPIED else bytes(memoryview(packed))


def _pack_odd(value: object) -> bytes:
    try:
        return orjson.dumps(_clean(value, 0), option=_OPTIONS, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        evalue = f"this cannot be written as JSON: {str(error)[:200]!a}"
        return orjson.dumps({"status": "error", "ename": "ValueError", "evalue": evalue, "traceback": []})


def _plain(value: object) -> object:
    try:
        return json_default(value)
    except TypeError:
        return repr(value)


def _clean(value: object, depth: int) -> object:
    """A copy of `value` that JSON can hold. What is nested deeper than 200 levels is left out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if depth > 200:
        return "..."
    if isinstance(value, dict):
        return {str(_clean(str(k), depth + 1)): _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return float(value) if abs(value) < 2**1000 else str(value)
    return value


def pack_content(msg_type: str, content: dict[str, Any]) -> bytes:
    """JSON of a message's content, or of a smaller stand-in that says so if it is larger than `MAX_MESSAGE`."""
    size = _characters(content)
    if size > MAX_MESSAGE:
        return _stand_in(msg_type, content, size)
    packed = pack(_with_long(content, _whole) if size >= _LONG else content)
    return packed if len(packed) <= MAX_MESSAGE else _stand_in(msg_type, content, len(packed))


def _stand_in(msg_type: str, content: dict[str, Any], size: int) -> bytes:
    if msg_type in ("display_data", "update_display_data", "execute_result"):
        note = f"[output of {size} bytes not shown: a message holds {MAX_MESSAGE}]"
        return pack({**content, "data": {"text/plain": note}, "metadata": {}})
    smaller = pack(_with_long(content, _cut))
    if len(smaller) <= MAX_MESSAGE:
        return smaller
    evalue = f"a {msg_type} of {size} bytes does not fit into a message of {MAX_MESSAGE}"
    status = {key: content[key] for key in ("execution_count",) if isinstance(content.get(key), int)}
    return pack({**status, "status": "error", "ename": "ValueError", "evalue": evalue, "traceback": []})


def _characters(value: object, depth: int = 0) -> int:
    """Of the strings in `value`, as deep as messages have long ones: text, tracebacks, displayed data."""
    if isinstance(value, str):
        return len(value)
    if depth > 1:
        return 0
    if isinstance(value, dict):
        return sum(_characters(item, depth + 1) for item in value.values())
    return sum(_characters(item, depth + 1) for item in value) if isinstance(value, list) else 0


def _with_long(value: object, replace: Callable[[str], object], depth: int = 0) -> Any:
    """`value` with those of its strings replaced that are long."""
    if isinstance(value, str):
        return replace(value) if len(value) > _CUT else value
    if depth > 1:
        return value
    if isinstance(value, dict):
        return {key: _with_long(item, replace, depth + 1) for key, item in value.items()}
    return [_with_long(item, replace, depth + 1) for item in value] if isinstance(value, list) else value


def _whole(text: str) -> orjson.Fragment:
    return orjson.Fragment(json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def _cut(text: str) -> str:
    return f"{text[:_CUT]}... [{len(text) - _CUT} characters cut: a message holds {MAX_MESSAGE} bytes]"
