"""What a write would do, for the person who is asked; and what takes it back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preview:
    """A change in people's words. Texts may come from strangers: whoever shows them cleans them."""

    #: What is changed, such as "order #1042 of Ada Lovelace".
    target: str = ""
    #: Money that moves, as a plain decimal number; "" for none.
    amount: str = ""
    currency: str = ""
    #: The fields that change, as they are and as they will be.
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    #: What else there is to know.
    note: str = ""


#: Called as the tool is, with the same arguments. Reads, never writes; raises what the tool would refuse with.
MakePreview = Callable[..., Awaitable[Preview]]


@dataclass(frozen=True)
class Done:
    """A call that was applied, for whoever undoes it."""

    args: Mapping[str, Any]
    result: Any
    #: The preview's fields from before the call; empty where nobody was asked.
    before: Mapping[str, str]


@dataclass(frozen=True)
class Undo:
    """The call that takes another one back: a tool of the same server, and its arguments."""

    tool: str
    args: Mapping[str, Any]


#: None: this call cannot be taken back any more, or nobody knows how things were.
MakeUndo = Callable[[Done], Undo | None]
