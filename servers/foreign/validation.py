"""Values against foreign schemas, by `jsonschema_rs`.

It was chosen over `jsonschema` and `fastjsonschema` for what hostile schemas do to them: its regular expressions are
bounded (theirs are Python's, which one pattern can stop for hours), it executes no generated source, it takes cyclic
references and deep values, and it is fast. References to elsewhere fail; they never reach the network or a file.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from .schema import Schema, SchemaError
from .words import one_line

#: Steps back and bytes of a compiled pattern. Patterns with neither look-around nor back-references run in linear time.
PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1_000_000, dfa_size_limit=1_000_000)
MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Problem:
    """One thing that does not fit: where, and what about it."""

    path: tuple[str | int, ...]
    words: str
    value: Any


@functools.lru_cache(maxsize=4_096)
def pattern_works(pattern: str) -> bool:
    try:
        _validator({"pattern": pattern})
    except ValueError:
        return False
    return True


class Validator:
    """A schema made ready to check values.

    Raises:
        SchemaError: it is none.
    """

    def __init__(self, schema: Schema) -> None:
        try:
            self._validator = _validator(schema)
        except ValueError as error:
            raise SchemaError(f"its schema cannot be used: {_first_line(str(error))}") from None

    def problems(self, value: object) -> list[Problem]:
        """What is wrong with a value, the first of it; none is well."""
        try:
            return list(self._problems(value))
        except (ValueError, UnicodeError) as error:
            return [Problem((), _first_line(str(error)), None)]

    def fits(self, value: object) -> bool:
        try:
            return self._validator.is_valid(value)
        except (ValueError, UnicodeError):
            return False

    def _problems(self, value: object) -> Iterator[Problem]:
        for number, error in enumerate(self._validator.iter_errors(value)):
            if number >= MOST_PROBLEMS:
                return
            yield Problem(tuple(error.instance_path), _first_line(error.message), error.instance)


def _validator(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        schema, validate_formats=False, retriever=_refuse, pattern_options=PATTERNS
    )


def _refuse(uri: str) -> Any:
    raise ValueError("references to elsewhere are not followed")


def _first_line(text: str) -> str:
    return one_line(text.partition("\n")[0], 200)
