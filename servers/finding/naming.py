"""Which servers a query names: "refund a Stripe charge" is about `stripe` before it is about refunds.

A server is called by its own name, by parts of it (`postmarkapp` is called Postmark), and by the words of its title.
A word that is written as a name ("files in Files.com") says more than one that is not; of those, one that tools of
other servers have too ("files") says little.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .words import STOP_WORDS, words

#: Words of a description by which its server may be called; a longer one is a sentence and no title.
MAX_TITLE = 6
#: Letters of a name's beginning or end that stand for all of it, and the share of it that they must be.
SHORTEST_PART, LEAST_SHARE = 5, 0.6
#: How surely a word of a title or a part of a name means the server, beside its name.
BY_TITLE, BY_PART = 0.7, 0.8
#: Capitals mean names only where no more of the words behind the first have them: not In A Headline.
MOST_CAPITALS = 0.6

_WORD = re.compile(r"\w+(?:[.]\w+)*")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")
_SPLIT = re.compile(r"[\W_]+")
_TOO_GENERAL = (
    "api apis rest http https www v1 v2 v3 service services server servers cloud developer developers docs "
    "documentation doc open data platform app web interactive go here people org com net io gov tools mcp"
)
_GENERAL = frozenset(_TOO_GENERAL.split())


@dataclass(frozen=True)
class Named:
    """What a query says of servers."""

    #: By server: how surely it is named by a word written as a name, and by one that is not.
    by_name: Mapping[str, float]
    by_word: Mapping[str, float]
    #: The stems that named them: of a tool of these servers they say nothing more.
    consumed: Mapping[str, frozenset[str]]
    #: The query without the names.
    rest: str


class Names:
    """What the servers are called by. `titles`: by server, what it says of itself."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._whole: dict[str, dict[str, float]] = {}
        self._parts: dict[str, dict[str, float]] = {}
        for server, title in titles.items():
            for name, sure in _called(server, title).items():
                self._whole.setdefault(name, {})[server] = sure
                for part in _parts(name):
                    known = self._parts.setdefault(part, {})
                    known[server] = max(known.get(server, 0.0), sure * len(part) / len(name))

    def named(
        self, query: str, visible: Callable[[], Collection[str]], elsewhere: Callable[[str, Collection[str]], int]
    ) -> Named:
        """The `visible` servers that `query` names.

        `elsewhere`: how many tools have a word (a stem), those of the given servers left out.
        """
        written = _WORD.findall(_POSSESSIVE.sub("", query))
        later = [word for word in written[1:] if word[:1].isalpha()]
        headline = len(later) > 1 and sum(word[:1].isupper() for word in later) > MOST_CAPITALS * len(later)
        by_name: dict[str, float] = {}
        by_word: dict[str, float] = {}
        consumed: dict[str, frozenset[str]] = {}
        gone: set[int] = set()
        for said, places in _sayings(written):
            found = self._found(said, visible)
            if not found:
                continue
            stems = words(" ".join(written[place] for place in places))
            is_name = not headline and ((places[0] > 0 and said[:1].isupper()) or any(c.isupper() for c in said[1:]))
            share = 1 / len(found) ** 0.5
            if not is_name:
                share /= 1 + max((math.log1p(elsewhere(stem, found)) for stem in stems), default=0.0)
            target = by_name if is_name else by_word
            for server, sure in found.items():
                target[server] = max(target.get(server, 0.0), sure * share)
            for stem in stems:
                consumed[stem] = consumed.get(stem, frozenset()) | found.keys()
            if is_name:
                gone.update(places)
        rest = " ".join(word for place, word in enumerate(written) if place not in gone) if gone else query
        return Named(by_name, by_word, consumed, rest or query)

    def _found(self, said: str, visible: Callable[[], Collection[str]]) -> dict[str, float]:
        key = _joined(said)
        if (key not in self._whole and key not in self._parts) or (key in STOP_WORDS and said.islower()):
            return {}
        seen = visible()
        whole = {server: sure for server, sure in self._whole.get(key, {}).items() if server in seen}
        if whole:
            return whole
        return {server: sure * BY_PART for server, sure in self._parts.get(key, {}).items() if server in seen}


def _sayings(written: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each word, the beginning of `Files.com`, two that may be one name ("Digital Ocean"); with their places."""
    for place, word in enumerate(written):
        yield word, (place,)
        beginning, dot, _ = word.partition(".")
        if dot:
            yield beginning, (place,)
        if place + 1 < len(written):
            yield word + written[place + 1], (place, place + 1)


def _called(server: str, title: str) -> dict[str, float]:
    found = {part: 1.0 for part in (*server.lower().split("_"), _joined(server))}
    described = _SPLIT.split(title.partition("\n")[0].lower())
    if len(described) <= MAX_TITLE:
        for word in (*described, "".join(described)):
            found.setdefault(word, BY_TITLE)
    return {name: sure for name, sure in found.items() if len(name) > 2 and name not in _GENERAL}


def _parts(name: str) -> set[str]:
    lengths = range(max(SHORTEST_PART, int(LEAST_SHARE * len(name) + 0.999)), len(name))
    return {part for length in lengths for part in (name[:length], name[-length:])}


def _joined(text: str) -> str:
    return _SPLIT.sub("", text.lower())
