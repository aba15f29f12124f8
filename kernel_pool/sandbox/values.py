"""What goes into a call and comes out of it: arguments as JSON, plain values or DataFrames, errors in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from . import wire
from .exchange import Answer
from .tables import Unreadable, frame_of


class CallFailed(Exception):
    """The call came to an error: the broker's, or one found on the way there."""

    def __init__(self, error: wire.Error) -> None:
        super().__init__(error.message)
        self.error = error


def value_of(tool: str, answer: Answer) -> Any:
    """The result of a call that was answered at once. Raises CallFailed."""
    match answer:
        case wire.Result():
            return read_value(tool, answer.value, arrow=False)
        case wire.Table():
            return read_value(tool, answer.data, arrow=True)
        case wire.Error():
            raise CallFailed(answer)
    raise unreachable(tool, "the tool broker sent parts of a result that was asked for as one")


def read_value(tool: str, data: bytes | memoryview, *, arrow: bool) -> Any:
    try:
        return frame_of(memoryview(data)) if arrow else json.loads(bytes(data))
    except (Unreadable, ValueError) as error:
        raise unreachable(tool, f"the tool broker sent what cannot be read ({error})") from None


def encode(tool: str, args: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps(args, default=_plain, allow_nan=False, ensure_ascii=False)
        return text.encode()
    except RecursionError:
        raise input_error(tool, "the arguments are nested too deeply, or contain themselves") from None
    except UnicodeEncodeError:
        raise input_error(tool, "a string among the arguments is no valid Unicode (a lone surrogate)") from None
    except ValueError as error:
        if "Circular" in str(error):
            raise input_error(tool, "the arguments contain themselves") from None
        raise input_error(tool, "nan and inf are no values that a tool takes; use None") from None
    except TypeError as error:
        raise input_error(tool, str(error)) from None


def _plain(value: object) -> object:
    """What notebooks have at hand (NumPy and pandas scalars, arrays, dates, Decimal) as JSON has it."""
    for method in ("tolist", "isoformat"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    match value:
        case Enum():
            return value.value
        case Decimal() | UUID():
            return str(value)
        case Mapping():
            return dict(value)
        case Set():
            return list(value)
    raise TypeError(
        f"a {type(value).__name__} is no value that a tool takes; pass plain numbers, strings, lists, dicts"
    )


def input_error(tool: str, problem: str) -> CallFailed:
    name = tool.rpartition(".")[2]
    return CallFailed(wire.Error(id="", type="ToolInputError", message=f"{name}: {problem}.", tool=tool))


def unreachable(tool: str, problem: str) -> CallFailed:
    message = f"{tool.rpartition('.')[2]}: {problem}. The session may have ended."
    return CallFailed(wire.Error(id="", type="UpstreamError", message=message, tool=tool))


def broken_off(tool: str, parts: int, problem: str) -> CallFailed:
    message = f"{tool.rpartition('.')[2]}: the result broke off after {parts:,} parts ({problem}). Call again."
    return CallFailed(wire.Error(id="", type="UpstreamError", message=message, tool=tool, retryable=True))
