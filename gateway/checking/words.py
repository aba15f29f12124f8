"""What the model reads of a finding: what is wrong, what is valid, and what was probably meant."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Sequence

from servers.checking import closest

_NAMES = 20


def listed(names: Iterable[str], what: str) -> str:
    """`Keys: a, b.`; the first twenty."""
    names = list(names)
    more = f", and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{what}: {', '.join(names[:_NAMES])}{more}."


def meant(word: str, candidates: Sequence[str]) -> str:
    """` Did you mean x?`, or nothing."""
    likely = closest(word, candidates)
    return f" Did you mean {likely}?" if likely else ""


def missing_key(name: str, key: str, keys: Sequence[str]) -> str:
    likely = closest(key, keys)
    # a name within a longer one, such as zip for postcode, is not found by its letters
    return f"{name} has no key {key!r}." + (f" Did you mean {likely!r}?" if likely else f" {listed(keys, 'Keys')}")


def attribute_of_dict(name: str, attribute: str, source: str, keys: Sequence[str]) -> str:
    owner = source.rpartition(".")[0] or "it"
    key = attribute if attribute in keys else closest(attribute, keys)
    if key is None:
        return f"{name} is a dict without an attribute or key {attribute!r}. {listed(keys, 'Keys')}"
    return f"{name} is a dict: write {owner}[{key!r}]."


def attribute_of_list(type_: str, attribute: str) -> str:
    return f"{type_} is a list and has no attribute {attribute!r}: take one element, or go through all of them."


def index_of_list(source: str, type_: str, key: str) -> str:
    owner = source or "it"
    return f"{owner} is a {type_}, whose index is a number, not {key}: take one element, or go through all of them."


def operation(symbol: str, operands: Sequence[tuple[str, str]]) -> str:
    (left, left_type), (right, right_type) = operands
    said = f"{plain(left_type)} {symbol} {plain(right_type)} is not supported"
    texts = [source for source, type_ in operands if plain(type_) == "str" and source]
    numbers = [type_ for _, type_ in operands if plain(type_) in ("int", "float", "bool")]
    if texts and numbers and symbol.rstrip("=") == "+" and any(source[:1] in "'\"f" for source in texts):
        other = next((source for source, type_ in operands if plain(type_) != "str"), "")
        return f"{said}: write an f-string, or str({other})."
    if texts and numbers:
        return f"{said}: {texts[0]} is text; convert it, as in float({texts[0]})."
    return f"{said} ({left or left_type} {symbol} {right or right_type})."


def text_for_number(source: str) -> str:
    try:
        whole = not isinstance(ast.parse(source, mode="eval").body, ast.BinOp)
    except SyntaxError:  # cut short
        whole = False
    if whole:
        return f"{source} is text: convert it, as in float({source})."
    return f"{source} is text: convert what it is made of first, with float(...)."


def undefined(name: str, known: Sequence[str], tools: Sequence[str]) -> str:
    """`tools`: qualified names of tools that are called `name`."""
    if tools:
        server, _, tool = tools[0].rpartition(".")
        return f"name {name!r} is not defined. It is a tool: from servers.{server} import {tool}"
    return f"name {name!r} is not defined.{meant(name, [*known, *dir(builtins)])}"


def plain(type_: str) -> str:
    """The type of a value that is known: `Literal["a"]` is a str; several of several types are none."""
    if not type_.startswith("Literal["):
        return type_.rstrip("*")
    try:
        values = ast.literal_eval(type_.removeprefix("Literal"))
    except (ValueError, SyntaxError):
        return type_
    kinds = {type(value).__name__ for value in values}
    return kinds.pop() if len(kinds) == 1 else type_
