"""Arguments against parameters: types converted, every problem found, the likely name suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import ToolInputError
from .rendering import annotation_of

if TYPE_CHECKING:
    from .tool import Parameter

#: Values are quoted in messages up to this many characters.
QUOTED = 60


def check_arguments(
    name: str, qualified_name: str, parameters: Sequence[Parameter], args: Mapping[str, object]
) -> dict[str, Any]:
    """Converted arguments with defaults. "123" passes for an int, as models write it; nothing else is bent.

    Raises:
        ToolInputError: all problems at once; `data` has `valid`, `unknown`, `missing` and `invalid` names.
    """
    known = {p.name: p for p in parameters}
    unknown = [key for key in args if key not in known]
    missing = [p.name for p in parameters if p.required and p.name not in args]
    checked: dict[str, Any] = {}
    invalid: dict[str, str] = {}
    for parameter in parameters:
        if parameter.name not in args:
            if not parameter.required:
                checked[parameter.name] = parameter.default
            continue
        try:
            checked[parameter.name] = msgspec.convert(args[parameter.name], parameter.annotation, strict=False)
        except (msgspec.ValidationError, TypeError) as error:
            invalid[parameter.name] = _type_problem(parameter, args[parameter.name], error)
    if not (unknown or missing or invalid):
        return checked

    problems = [f"unknown argument {_quote(key)}" for key in unknown]
    problems += [f"missing argument {key!r}" for key in missing]
    problems += invalid.values()
    likely = _suggestion(unknown, missing, known)
    raise ToolInputError(
        f"{name}: {'; '.join(problems)}. Valid: {_listed(parameters)}.{' ' + likely if likely else ''}",
        tool=qualified_name,
        data={"valid": list(known), "unknown": unknown, "missing": missing, "invalid": list(invalid)},
    )


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` was probably meant to be, or None."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(str(word).casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def _suggestion(unknown: Sequence[str], missing: Sequence[str], known: Mapping[str, Parameter]) -> str:
    """One unknown beside one missing name is a mix-up, whatever they look like."""
    if len(unknown) == len(missing) == 1:
        return f"Did you mean {missing[0]}?"
    likely = [match for key in unknown if (match := closest(key, missing or known))]
    return f"Did you mean {', '.join(dict.fromkeys(likely))}?" if likely else ""


def _listed(parameters: Sequence[Parameter]) -> str:
    if not parameters:
        return "none"
    return ", ".join(p.name + ("*" if p.required else "") for p in parameters) + " (* required)"


def _type_problem(parameter: Parameter, value: object, error: Exception) -> str:
    detail, _, at = str(error).partition(" - at `$")
    place = f"{parameter.name}{at.rstrip('`')}"
    expected = annotation_of(parameter.annotation)
    return f"{place} is {_quote(value)}, which is not {expected} ({detail[0].lower() + detail[1:]})"


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= QUOTED else text[: QUOTED - 1] + "…"
