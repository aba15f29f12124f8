"""Arguments and results as text that is the same whenever they are.

JSON by the standard library: integers of any size, floats (nan and the infinities too, in results) and strings with any
code point come back as they went.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from servers.errors import OutputSchemaError, ToolInputError

#: Top-level arguments of one call, and the length of their names. A tool has a dozen; the search for likely names
#: must not become a kernel's way to keep the gateway busy.
MAX_ARGUMENTS = 64
MAX_NAME = 100

_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_compact = json.JSONEncoder(separators=(",", ":"))


def parse_arguments(body: bytes, *, max_values: int) -> dict[str, Any]:
    """The JSON object that a kernel sent, before any of it is trusted.

    Raises:
        ToolInputError
    """
    # Counted before it is parsed: a million empty lists fit into 3 MB and take half a gigabyte.
    if body.count(b",") + body.count(b"[") + body.count(b"{") > max_values:
        raise ToolInputError(f"The arguments hold more than {max_values:,} values. Pass them in several calls.")
    try:
        args = json.loads(body.decode())
    except RecursionError:
        raise ToolInputError("The arguments are nested too deeply.") from None
    except ValueError:
        args = None
    if not isinstance(args, dict):
        raise ToolInputError("The arguments are no JSON object.")
    return args


def check_names(args: Mapping[str, Any]) -> None:
    """Bound what validation will compare with the parameters' names, in dispatched arguments too.

    Raises:
        ToolInputError
    """
    nested = args.get("arguments")
    for names in (args, nested if isinstance(nested, dict) else {}):
        if len(names) > MAX_ARGUMENTS:
            raise ToolInputError(f"{len(names):,} arguments; no tool takes more than {MAX_ARGUMENTS}.")
        if any(len(name) > MAX_NAME for name in names):
            raise ToolInputError(f"An argument's name is longer than {MAX_NAME} characters.")


def canonical(args: Mapping[str, Any]) -> tuple[str, str]:
    """Checked arguments as JSON with sorted keys, and the SHA-256 of it in hex.

    Raises:
        ToolInputError: a value has no such text.
    """
    try:
        plain = msgspec.to_builtins(args)
        text = _canonical.encode(plain)
        return text, hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        raise ToolInputError("A string among the arguments is no valid Unicode (a lone surrogate).") from None
    except RecursionError:
        raise ToolInputError("The arguments are nested too deeply.") from None
    except ValueError:
        raise ToolInputError("nan and inf are no values that a tool takes; use None.") from None


def encode_result(tool: str, value: object) -> str:
    """A result as the kernel gets it and the journal keeps it.

    Raises:
        OutputSchemaError: it is no plain data.
    """
    try:
        return _compact.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputSchemaError(f"{tool}: the result is no plain data: {error}", tool=tool) from None


def decode_result(text: str) -> Any:
    return json.loads(text)
