"""What a person is shown: made once, when a call is asked about. Everything in it may be strangers' text."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.transcripts.clean import plain
from servers.errors import ToolDenied, ToolError, ToolInputError, ToolNotFound
from servers.preview import Preview

from .types import Asking, View

_TEXT = 300
_FIELDS = 30
#: The tool would refuse the call: nobody is asked about it.
_REFUSED = (ToolInputError, ToolNotFound, ToolDenied)


async def look(asking: Asking, patience_s: float) -> Preview:
    """What the call would change, as far as it can be known.

    Raises:
        ToolInputError, ToolNotFound, ToolDenied: the call cannot be made at all.
    """
    try:
        async with asyncio.timeout(patience_s):
            return await asking.preview() or Preview()
    except _REFUSED:
        raise
    except TimeoutError:
        return Preview(note=f"What it changes could not be looked up within {patience_s:g} s.")
    except ToolError as error:
        return Preview(note=f"What it changes could not be looked up: {error.message}")
    except Exception as error:  # noqa: BLE001 - a tool's bug in what is shown must not stop the question
        return Preview(note=f"What it changes could not be looked up ({type(error).__name__}).")


def view_of(asking: Asking, preview: Preview, redact: Callable[[str], str] = str) -> View:
    """The view of a call."""

    def clean(text: object) -> str:
        return shown(redact(str(text)))

    def fields(found: Mapping[str, str]) -> dict[str, str]:
        return {clean(name): clean(value) for name, value in list(found.items())[:_FIELDS]}

    tool = asking.tool
    plain_args: dict[str, Any] = msgspec.to_builtins(asking.args)
    amount = preview.amount or (str(asking.args.get(tool.amount) or "") if tool.amount else "")
    return View(
        tool=tool.qualified_name,
        effect=tool.effect,
        does=clean(tool.summary),
        target=clean(preview.target),
        amount=clean(amount),
        currency=clean(preview.currency),
        before=fields(preview.before),
        after=fields(preview.after),
        args={clean(name): clean(_text(value)) for name, value in list(plain_args.items())[:_FIELDS]},
        revert=clean(tool.revert),
        note=clean(preview.note),
    )


def shown(text: str, limit: int = _TEXT) -> str:
    """One line of bounded length without control, direction and invisible characters; JSON and databases take it."""
    line = " ".join(plain(text[: 4 * limit]).split())
    kept = "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
    return kept if len(kept) <= limit and len(text) <= 4 * limit else f"{kept[: limit - 1]}…"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
