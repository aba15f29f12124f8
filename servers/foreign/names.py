"""Wire names as Python names: what is none is mapped, as little as can be."""

from __future__ import annotations

import builtins
import hashlib
import keyword
import re
import unicodedata
from collections.abc import Collection, Container

#: A name in the broker's frames is no longer than this.
LONGEST = 100
LONGEST_TYPE = 60

#: No argument can have these names: the broker refuses the first, Python the second.
_NO_ARGUMENTS = frozenset({"tenant", "__debug__"})
_BUILTINS = frozenset(name for name in dir(builtins) if name.islower())
#: Said in words, as names often differ in these alone.
_SYMBOLS = {"<": "lt", ">": "gt", "=": "eq", "+": "plus", "!": "not", "*": "star", "%": "percent", "&": "and"}
#: What stubs import or use; a type of such a name would take its place.
_TYPING = frozenset({"Any", "Literal", "NotRequired", "TypedDict", "True", "False", "None"})


def parameter_name(wire: str) -> str:
    """`X-Trace Id` -> `X_Trace_Id`, `class` -> `class_`."""
    name = identifier(wire)
    return f"{name}_" if keyword.iskeyword(name) or name in _NO_ARGUMENTS else name


def tool_name(wire: str) -> str:
    """As `parameter_name`; no leading `_`, which modules keep for themselves, and no builtin, which it would hide."""
    name = identifier(wire).lstrip("_") or "tool"
    if not name.isidentifier():
        name = f"t_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _BUILTINS else name


def type_name(text: str, taken: Container[str] = ()) -> str:
    """`get-user result` -> `GetUserResult`; with a number behind it where that is `taken`."""
    words = re.split(r"[\W_]+", unicodedata.normalize("NFKC", text[:400]))
    name = identifier("".join(word[:1].upper() + word[1:] for word in words if word))[:LONGEST_TYPE].lstrip("_")
    if not name.isidentifier():
        name = f"T{name}"
    if keyword.iskeyword(name) or name in _TYPING or name in _BUILTINS:
        name += "_"
    number, candidate = 2, name
    while candidate in taken:
        candidate, number = f"{name}{number}", number + 1
    return candidate


def identifier(wire: str) -> str:
    """The nearest Python identifier, in the form that Python itself gives it (NFKC)."""
    if wire.isascii() and wire.isidentifier() and len(wire) <= LONGEST:
        return wire
    folded = unicodedata.normalize("NFKC", wire[: 4 * LONGEST])
    for symbol, word in _SYMBOLS.items():
        folded = folded.replace(symbol, f" {word} ") if symbol in folded else folded
    folded = folded.strip()
    name = "".join(c if f"a{c}".isidentifier() else "_" for c in folded)
    if name != folded:
        name = re.sub("__+", "_", name)
        name = (name if folded.endswith("_") else name.rstrip("_")) or name
    if not name.strip("_"):
        name = f"n{_digest(wire)}"
    if not name.isidentifier():
        name = f"_{name}"
    # NFKC once more: what was put together may compose.
    name = unicodedata.normalize("NFKC", name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}_{_digest(wire)}"


def plain_key(key: str, used: Collection[str]) -> bool:
    """Whether a TypedDict's class body can have this key, `used` being the names that its annotations use."""
    return (
        key.isidentifier()
        and unicodedata.normalize("NFKC", key) == key
        and not keyword.iskeyword(key)
        and not key.startswith("__")  # names of two underscores are changed in class bodies
        and key not in used
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
