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
_DEEDS: tuple[Action, ...] = ("delete", "update", "create")
_ORDERS = tuple((action, re.compile(rf"\b(?:{_ASKS[action]})\b", re.IGNORECASE)) for action in _DEEDS)
#: "fixtures of a team", "web addresses that I may use": what is named to be seen. Not "refund part of an order".
_THING = re.compile(
    r"\s*\w+(?:\s+(?!an?\b|the\b|this\b|my\b|our\b|part\b)\w+)?\s+(?:of|in|for|on|about|that|which|at|from|under|by|I|kept)\b",
    re.IGNORECASE,
)
_ONE = re.compile(r"\b(?:one|this|single|particular)\b", re.IGNORECASE)
_MANY = re.compile(r"\b(?:all|every|everybody|list|several|which|many)\b", re.IGNORECASE)
_BY_ID = re.compile(r"_(?:id|key|slug|name|code)$")
_ID = re.compile(r"(?:^|_)(?:id|key|slug|name|code)s?$")


@dataclass(frozen=True)
class Wanted:
    #: None where the query does not say.
    action: Action | None
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
    """A question wants to see something, and so does who only names a thing; another order is not understood."""
    return Wanted(_action(query), bool(_ONE.search(query)), bool(_MANY.search(query)))


def _action(query: str) -> Action | None:
    if _QUESTION.match(query):
        return "read"
    found = [(match.start(), action) for action, order in _ORDERS if (match := order.search(query))]
    if found:
        return min(found)[1]
    return "read" if _THING.match(query) else None


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
