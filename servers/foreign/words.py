"""Other people's words, made safe to show: no control, direction or invisible characters, and not endless.

Source text is made by `docstring` and `comment` alone, so that no description can end the string that it stands in.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata

#: Categories that are never shown: control, format (bidi, zero-width, tags), surrogates, private use.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co"})
#: Not in those categories, and just as invisible: fillers, blanks, joiners and variation selectors.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]+")
_BREAKS = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
_SPACES = re.compile(r"\s+")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-=.!|~])")
#: What would end a docstring: three quotes, and those right before its end.
_QUOTES = re.compile(r'"{3,}|"+\Z')
#: Marks on one letter, beyond which they only hide what stands around it.
_MARKS = 4


def prose(text: str, limit: int) -> str:
    """Text of several lines, at most `limit` characters."""
    # Cut first: cleaning megabytes to show a page of them would be their way to keep the gateway busy.
    lines = _BREAKS.sub("\n", text[: 2 * limit]).split("\n")
    kept = "\n".join(_visible(line.replace("\t", " ")).rstrip() for line in lines)
    return _cut(re.sub(r"\n{3,}", "\n\n", kept).strip(), limit)


def one_line(text: str, limit: int) -> str:
    """Text of one line, at most `limit` characters."""
    return _cut(_SPACES.sub(" ", _visible(_BREAKS.sub(" ", text[: 2 * limit]).replace("\n", " "))).strip(), limit)


def titled(text: str, limit: int, title: int = 120) -> str:
    """`prose` whose first line is short, as lists and prompts show it: its first sentence, or its beginning."""
    cleaned = prose(text, limit)
    first, _, rest = cleaned.partition("\n")
    first = first.strip("#* ")
    if len(first) <= title:
        return f"{first}\n{rest}".strip()
    sentence = re.match(rf".{{10,{title - 1}}}?[.!?:](?= )", first)
    if sentence is None:
        return f"{_cut(first, title)}\n\n{cleaned}"
    return f"{sentence[0]}\n\n{first[sentence.end() :].strip()}\n{rest}".strip()


def docstring(text: str, indent: str = "    ") -> str:
    """The source of a docstring that has exactly this text when it is parsed."""
    escaped = "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text.replace("\\", r"\\"))
    several = "\n" in escaped
    escaped = _QUOTES.sub(lambda found: r"\"" * len(found[0]), escaped)
    body = textwrap.indent(escaped, indent).strip()
    return f'"""{body}{chr(10) + indent if several else ""}"""'


def markdown(text: str) -> str:
    """Text that markdown, and the HTML made of it, shows as it is: no markup, no tag, no link."""
    escaped = _MARKUP.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return escaped.replace("://", ":&#47;/")


def comment(text: str, limit: int = 200) -> str:
    """What may follow `#` in source."""
    return one_line(text, limit)


def _visible(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    kept: list[str] = []
    marks = 0
    for character in _BLANK.sub("", line):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if category not in _HIDDEN and marks <= _MARKS:
            kept.append(character)
    return "".join(kept)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
