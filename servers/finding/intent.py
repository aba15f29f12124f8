"""What a query wants done, and what a tool does: it reads, makes, changes or deletes, one thing or many."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from servers.tool import Tool

Action = Literal["read", "create", "update", "delete"]

#: By which words tools are named that do it; the first such word of a name or a summary says.
_DOES: Mapping[Action, str] = {
    "read": "get gets list lists show shows read reads retrieve retrieves find finds fetch fetches search query view "
    "lookup return returns check checks count describe download",
    "create": "create creates add adds post new insert register submit make upload import send sends invite generate "
    "start begins",
    "update": "update updates patch put edit change changes set sets modify rename replace replaces save upsert",
    "delete": "delete deletes remove removes destroy drop clear cancel revoke unset purge reset",
}
_ACTION_OF: Mapping[str, Action] = {word: action for action, said in _DOES.items() for word in said.split()}

#: How people ask for it: the first such expression of a query says; of a question, that it is one.
_ASKS: Mapping[Action, str] = {
    "read": "what which who whom whose how when where why is are does do did can may all every list show look find one "
    "details search picture",
    "delete": "throw away|throw out|throw|get rid|forget|delete|remove|erase|drop|destroy|cancel|take away|take off|"
    "take out|no longer|any more|unsend|kick|wipe|clear|empty|close down|discard|undo|revoke|stop|end",
    "update": "change|edit|correct|rename|fix|adjust|set|swap|replace|update|move|modify|alter|archive|renew|mark",
    "create": "new|create|make|add|put|open|write|register|tell|send|upload|invite|ask|post|say|submit|hand in|hired|"
    "start|run|plan|book|buy|have|let|connect|import|sign up|load|launch|draw|begin|generate",
}
_QUESTION = re.compile(rf"\s*(?:in |from |to )?(?:{'|'.join(_ASKS['read'].split())})\b", re.IGNORECASE)
_ORDERS = tuple(
    (action, re.compile(rf"\b(?:{_ASKS[action]})\b", re.IGNORECASE)) for action in ("delete", "update", "create")
)
_ONE = re.compile(r"\b(?:one|this|single|particular)\b", re.IGNORECASE)
_MANY = re.compile(r"\b(?:all|every|everybody|list|several|which|many)\b", re.IGNORECASE)
_BY_ID = re.compile(r"_(?:id|key|slug|name|code)$")
_ID = re.compile(r"(?:^|_)(?:id|key|slug|name|code)s?$")


@dataclass(frozen=True)
class Wanted:
    action: Action
    one: bool
    many: bool


@dataclass(frozen=True)
class Traits:
    """Of a tool. An action is None where its words do not say."""

    by_name: Action | None
    by_summary: Action | None
    #: It is named as one that answers with several; for one that is told by its id; it cannot be called without one.
    many: bool
    by_id: bool
    needs_id: bool


def wanted(query: str) -> Wanted:
    """What is no order is a question: people name what they want to see."""
    return Wanted(_action(query), bool(_ONE.search(query)), bool(_MANY.search(query)))


def _action(query: str) -> Action:
    if _QUESTION.match(query):
        return "read"
    found = [(match.start(), action) for action, order in _ORDERS if (match := order.search(query))]
    return min(found, key=lambda each: each[0])[1] if found else "read"  # type: ignore[return-value]


def traits_of(tool: Tool) -> Traits:
    name = tool.name.lower().split("_")
    first = re.match(r"\W*([a-z]+)", tool.summary.lower())
    return Traits(
        by_name=next((_ACTION_OF[word] for word in name if word in _ACTION_OF), None),
        by_summary=_ACTION_OF.get(first[1]) if first else None,
        many=_plural(name[-1]) or bool({"list", "all", "search"} & set(name)),
        by_id=bool(_BY_ID.search(tool.name)),
        needs_id=any(p.required and _ID.search(p.name) for p in tool.parameters),
    )


def _plural(word: str) -> bool:
    return word.endswith("s") and not word.endswith("ss")
