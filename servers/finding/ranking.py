"""How much a tool is worth as an answer: the sum of what speaks for it, each weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .index import Floats
from .intent import Action, Traits, Wanted

_ACTIONS: tuple[Action, ...] = ("read", "create", "update", "delete")
_UNKNOWN = len(_ACTIONS)


@dataclass(frozen=True)
class Weights:
    """What else counts, beside the words (BM25F) that a tool shares with a query."""

    #: Its server is named, by a word written as a name or by another; each times how surely.
    named: float
    mentioned: float
    #: Times what speaks for what it does.
    deed: float
    #: A word of like meaning, beside the query's own.
    otherwise: float
    #: Times the cosine of its meaning and the query's.
    alike: float = 0.0


# Fitted as docs/finding.md says, on questions and summaries that measure nothing.
BY_WORDS = Weights(named=6.5, mentioned=9.0, deed=0.55, otherwise=0.5)
BY_MEANING_TOO = Weights(named=12.5, mentioned=20.5, deed=1.0, otherwise=0.65, alike=15.0)
#: From which cosine on a tool without a common word is found.
LEAST_ALIKE = 0.35

#: Its name or its summary says that it does something else; its name says that it does what is wanted.
OTHER_BY_NAME, OTHER_BY_SUMMARY, SAME_BY_NAME = -0.9, -1.4, 0.5
#: One thing is wanted to be seen, or several: it is told by its id; it answers with several; it needs an id.
ONE = (1.0, -1.2, 0.35)
SEVERAL = (-0.8, 0.9, -0.6)


class Ranking:
    """The traits of a snapshot's tools, as arrays."""

    def __init__(self, traits: Sequence[Traits]) -> None:
        self._by_name = np.array([_number(t.by_name) for t in traits], dtype=np.int8)
        self._by_summary = np.array([_number(t.by_summary) for t in traits], dtype=np.int8)
        self._numbers = np.array([(t.by_id, t.many, t.needs_id) for t in traits], dtype=np.float32).reshape(-1, 3)
        self._worth: dict[Wanted, Floats] = {}

    def worth(self, wanted: Wanted) -> Floats:
        """What speaks for each tool whatever the words. There are few things to want: each is reckoned once."""
        if wanted not in self._worth:
            self._worth[wanted] = self._reckoned(wanted)
        return self._worth[wanted]

    def _reckoned(self, wanted: Wanted) -> Floats:
        action = _number(wanted.action)
        worth = np.zeros(len(self._by_name), dtype=np.float32)
        if action != _UNKNOWN:
            worth += OTHER_BY_NAME * ((self._by_name != action) & (self._by_name != _UNKNOWN))
            worth += OTHER_BY_SUMMARY * ((self._by_summary != action) & (self._by_summary != _UNKNOWN))
            worth += SAME_BY_NAME * (self._by_name == action)
        for asked, weights in ((wanted.one, ONE), (wanted.many, SEVERAL)):
            if asked:
                seen = 1.0 if wanted.action == "read" else 0.0
                worth += self._numbers @ np.array([weights[0] * seen, weights[1] * seen, weights[2]], dtype=np.float32)
        return worth


def _number(action: Action | None) -> int:
    return _UNKNOWN if action is None else _ACTIONS.index(action)
