"""Arguments against parameters: types converted, every problem found, the likely name suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import OutputSchemaError, ToolInputError
from .rendering import annotation_of

if TYPE_CHECKING:
    from .foreign.record import Foreign
    from .foreign.validation import Problem
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
    checked: dict[str, Any] = {}
    invalid: dict[str, str] = {}
    missing: list[str] = []
    found = 0
    for parameter in parameters:
        key = parameter.name
        if key not in args:
            if parameter.required:
                missing.append(key)
            else:
                checked[key] = parameter.default
            continue
        found += 1
        try:
            checked[key] = msgspec.convert(args[key], parameter.annotation, strict=False)
        except (msgspec.ValidationError, TypeError) as error:
            invalid[key] = _type_problem(parameter, args[key], error)
    unknown = [] if found == len(args) else sorted(set(args) - {p.name for p in parameters}, key=list(args).index)
    _raise_problems(name, qualified_name, parameters, unknown, missing, invalid)
    return checked


def check_foreign_arguments(
    name: str, qualified_name: str, parameters: Sequence[Parameter], foreign: Foreign, args: Mapping[str, object]
) -> dict[str, Any]:
    """The arguments as they were given, found to fit the foreign schema.

    Raises:
        ToolInputError: as `check_arguments` does.
    """
    known = {p.name for p in parameters}
    unknown = [key for key in args if key not in known]
    missing = [p.name for p in parameters if p.required and p.name not in args]
    given = {key: value for key, value in args.items() if key in known}
    invalid: dict[str, str] = {}
    for problem in foreign.argument_problems(given):
        if not problem.path and missing:
            continue  # says again what is missing
        parameter = foreign.parameter_of(str(problem.path[0])) if problem.path else ""
        invalid.setdefault(parameter, _foreign_problem(parameter, problem, parameters))
    _raise_problems(name, qualified_name, parameters, unknown, missing, invalid)
    return given


def check_foreign_result(name: str, qualified_name: str, foreign: Foreign, value: object) -> object:
    """The value, found to fit what its server declares.

    Raises:
        OutputSchemaError
    """
    for problem in foreign.result_problems(value):
        if foreign.broken is not None:
            foreign.broken()
        at = "".join(f"[{step!r}]" for step in problem.path[:10])
        raise OutputSchemaError(
            f"{name}: the result{at} does not fit the schema that its server declares: {problem.words}",
            tool=qualified_name,
        )
    return value


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` was probably meant to be, or None."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(str(word).casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def _raise_problems(
    name: str,
    qualified_name: str,
    parameters: Sequence[Parameter],
    unknown: Sequence[str],
    missing: Sequence[str],
    invalid: Mapping[str, str],
) -> None:
    if not (unknown or missing or invalid):
        return
    known = {p.name: p for p in parameters}
    problems = [f"unknown argument {_quote(key)}" for key in unknown]
    problems += [f"missing argument {key!r}" for key in missing]
    problems += invalid.values()
    likely = _suggestion(unknown, missing, known)
    raise ToolInputError(
        f"{name}: {'; '.join(problems)}. Valid: {_listed(parameters)}.{' ' + likely if likely else ''}",
        tool=qualified_name,
        data={"valid": list(known), "unknown": list(unknown), "missing": list(missing), "invalid": list(invalid)},
    )


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


def _foreign_problem(name: str, problem: Problem, parameters: Sequence[Parameter]) -> str:
    if not problem.path:
        return problem.words
    place = name + "".join(f"[{step!r}]" for step in problem.path[1:10])
    expected = next((annotation_of(p.annotation) for p in parameters if p.name == name), "")
    if len(problem.path) == 1 and problem.value is None and "None" not in expected:
        return f"{place} is None, which is not {expected} (leave it out instead)"
    return f"{place}: {problem.words}" + (f" (wanted: {expected})" if len(problem.path) == 1 else "")


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= QUOTED else text[: QUOTED - 1] + "…"
