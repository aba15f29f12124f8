"""Text as the words that tools are found by: identifiers split, endings cut, and what else a person may have said."""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import lru_cache
from itertools import pairwise

from Stemmer import Stemmer

from .synonyms import PHRASES, SYNONYMS

#: Words of one text that count; a description may be of any length.
MAX_WORDS = 400

_own = threading.local()

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?:s|re|ve|ll|d|m|t)\b")
_PHRASES = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(PHRASES, key=len, reverse=True)))})\b", re.IGNORECASE)

#: Of a query: words that count, and characters in which phrases are looked for.
MAX_WISHES = 40
MAX_SPOKEN = 1_000

#: How much a word counts that the query has in another form of words, unless told otherwise.
SAID_OTHERWISE = 0.5
MEANT_BY_PHRASE = 0.8

#: Said in questions and descriptions alike, of no help to tell tools apart.
_UNHELPFUL = (
    "a about after again all also am an and any anything are as at be been being but by can could did do does doing "
    "don each else ever every for from give given had has have having he her here hers him his how i if in into is it "
    "its itself just kindly let like ll may me might mine more most much must my need no nor not now of off on once "
    "one only onto or our ours out own please shall she should so some somebody someone something such than that the "
    "their theirs them then there these they this those through to too upon us use used using very via want was we "
    "were what when where whether which while who whom whose why will wish with without would you your yours"
)
STOP_WORDS = frozenset(_UNHELPFUL.split())


def words(text: str) -> list[str]:
    """The words of a text as they are compared, in order, with repetitions."""
    plain = unicodedata.normalize("NFKC", _APOSTROPHE.sub("", text))
    return [_stem(word) for word in _WORD.findall(plain)[:MAX_WORDS] if word.casefold() not in STOP_WORDS]


def wishes(query: str, otherwise: float = SAID_OTHERWISE) -> list[dict[str, float]]:
    """What a query asks for, wish by wish: the words that grant it, with how much each counts.

    A word of the query is a wish that it grants whole, and words of like meaning in part (`otherwise`). Two neighbours
    may be one word elsewhere ("air quality" is `airquality`): that is a wish too, which most tools do not grant.
    """
    spoken = " ".join(_APOSTROPHE.sub("", query[:MAX_SPOKEN]).split())
    said = [match[0].casefold() for match in _PHRASES.finditer(spoken)]
    rest = _PHRASES.sub(" ", spoken)
    own = list(dict.fromkeys(words(rest) or map(_stem, _WORD.findall(spoken)[:MAX_WORDS])))[:MAX_WISHES]
    found = [dict.fromkeys(_alike().get(word, ()), otherwise) | {word: 1.0} for word in own]
    plain = _WORD.findall(rest)[:MAX_WISHES]
    together = [{_stem(first + second): 1.0} for first, second in pairwise(plain)]
    return found + together + [_meant(phrase) for phrase in said[:MAX_WISHES]]


def _meant(phrase: str) -> dict[str, float]:
    literal = dict.fromkeys(words(phrase), SAID_OTHERWISE)
    return literal | dict.fromkeys(map(_stem, PHRASES[phrase]), MEANT_BY_PHRASE)


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word.casefold()))


def _stemmer() -> Stemmer:
    """Each thread has its own: one stemmer serves one thread at a time."""
    if not hasattr(_own, "stemmer"):
        _own.stemmer = Stemmer("english", 0)
    return _own.stemmer


@lru_cache(maxsize=1)
def _alike() -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for group in SYNONYMS:
        stems = list(dict.fromkeys(map(_stem, group.split())))
        for stem in stems:
            found.setdefault(stem, {}).update(dict.fromkeys(other for other in stems if other != stem))
    return {stem: tuple(others) for stem, others in found.items()}
