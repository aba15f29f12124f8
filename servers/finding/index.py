"""An inverted index of tools, ranked by BM25F.

BM25F (Robertson, Zaragoza and Taylor 2004, "Simple BM25 extension to multiple weighted fields") adds up a word's
occurrences over the fields of a tool, each weighted and set against the field's usual length, before they saturate: a
word in the name outdoes many in the description, and the same word in both does not count twice over.

One server's tools make a `Part`, which depends on nothing else: so a change to one server leaves the others' parts as
they are, and sessions with different servers share those that they have in common.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from .entry import Entry
from .words import words

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Field:
    """How much an occurrence counts, and how much it matters that the field is longer than usual (0 to 1)."""

    weight: float
    length_matters: float
    usual_length: float


#: Lengths are those of usual tools, not of the catalogue at hand: a part must not depend on the other parts.
FIELDS: Mapping[str, Field] = {
    "name": Field(5.5, 0.9, 4.0),
    "server": Field(15.0, 1.0, 3.0),
    "parameters": Field(0.2, 0.3, 12.0),
    "summary": Field(6.0, 0.9, 7.0),
    "description": Field(3.0, 0.8, 15.0),
}
#: How soon further occurrences add nothing.
SATURATION = 8.0
#: Occurrences in one field that count: a description cannot be stuffed to be found.
MOST_COUNTED = 3


@dataclass(frozen=True, eq=False)
class Part:
    """The tools of one server. Posting `i` says: word `vocabulary[terms[i]]` is in tool `tools[i]`, as `weights[i]`."""

    count: int
    vocabulary: tuple[str, ...]
    terms: Integers
    tools: Integers
    weights: Floats


def part_of(entries: Sequence[Entry]) -> Part:
    """The postings of one server's tools."""
    vocabulary: dict[str, int] = {}
    terms: list[int] = []
    tools: list[int] = []
    weights: list[float] = []
    for number, entry in enumerate(entries):
        for word, weight in _weighted(entry).items():
            terms.append(vocabulary.setdefault(word, len(vocabulary)))
            tools.append(number)
            weights.append(weight / (SATURATION + weight))
    return Part(
        count=len(entries),
        vocabulary=tuple(vocabulary),
        terms=np.array(terms, dtype=np.int32),
        tools=np.array(tools, dtype=np.int32),
        weights=np.array(weights, dtype=np.float32),
    )


def _weighted(entry: Entry) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, field in FIELDS.items():
        found = words(getattr(entry, name))
        length = 1 - field.length_matters + field.length_matters * len(found) / field.usual_length
        for word, count in Counter(found).items():
            total[word] = total.get(word, 0.0) + field.weight * min(count, MOST_COUNTED) / max(length, 0.2)
    return total


class Index:
    """Parts, one after the other, as one."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.size = sum(part.count for part in parts)
        numbers: dict[str, int] = {}
        terms, tools = [], []
        offset = 0
        for part in parts:
            own = np.array([numbers.setdefault(w, len(numbers)) for w in part.vocabulary], dtype=np.int32)
            terms.append(own[part.terms])
            tools.append(part.tools + offset)
            offset += part.count
        every = np.concatenate(terms) if terms else np.zeros(0, dtype=np.int32)
        order = np.argsort(every, kind="stable")
        self._numbers = numbers
        self._tools = (np.concatenate(tools) if tools else np.zeros(0, dtype=np.int32))[order].astype(np.int32)
        self._weights = (np.concatenate([p.weights for p in parts]) if parts else np.zeros(0, dtype=np.float32))[order]
        self._starts = np.searchsorted(every[order], np.arange(len(numbers) + 1))

    @property
    def bytes(self) -> int:
        return int(self._tools.nbytes + self._weights.nbytes + self._starts.nbytes)

    def tools_with(self, word: str) -> Integers:
        """The tools that have a word."""
        number = self._numbers.get(word)
        return self._tools[:0] if number is None else self._tools[self._starts[number] : self._starts[number + 1]]

    def scores(
        self,
        query: Iterable[Mapping[str, float]],
        allowed: Mask | None = None,
        silent: Mapping[str, Mask] = MappingProxyType({}),
    ) -> Floats:
        """Each tool's score: 0 where it grants none of the query's wishes, and where it is not `allowed`.

        Of the words that grant a wish the best one counts, else a tool that is described in many ways would win. How
        rare a word is, is counted among the allowed tools alone. `silent`: by word, the tools of which it says nothing.
        """
        result = np.zeros(self.size, dtype=np.float32)
        total = self.size if allowed is None else int(allowed.sum())
        for wish in query:
            granted = np.zeros(self.size, dtype=np.float32)
            for word, weight in wish.items():
                number = self._numbers.get(word)
                if number is None:
                    continue
                here = slice(self._starts[number], self._starts[number + 1])
                tools, weights = self._tools[here], self._weights[here]
                if allowed is not None:
                    kept = allowed[tools]
                    tools, weights = tools[kept], weights[kept]
                rarity = np.log1p((total - len(tools) + 0.5) / (len(tools) + 0.5))
                if word in silent:
                    kept = ~silent[word][tools]
                    tools, weights = tools[kept], weights[kept]
                granted[tools] = np.maximum(granted[tools], weights * np.float32(weight * rarity))
            result += granted
        return result
