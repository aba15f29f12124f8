"""By what a person is named in text and data of others: an e-mail address, or the shop's id of them beside `customer`.

What names them among what is another's is cut out of it: of a list the elements, of a text the lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec
import orjson
import pyarrow as pa

#: An address is another one where these go before it, or come after it. The same in Postgres and in Python.
_BEFORE = r"(?<![A-Za-z0-9._%+-])"
_AFTER = r"(?![A-Za-z0-9-])(?!\.[A-Za-z0-9])"
_KEYS = ("customer", "customer_id")
#: An object is about whom one of these in it is about.
_WHOSE = ("billing", "customer")
#: JSON of this size and more is not taken apart: its lines are.
_LARGEST = 16 * 2**20


class Names(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One person's. `emails` in lower case."""

    emails: tuple[str, ...]
    customers: tuple[int, ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """For SQL (`mention_sql`)."""
        needles, addresses = list(self._needles), list(self._addresses)
        return {"needles": needles, "addresses": addresses, "tables": [], "pattern": self.pattern}

    @cached_property
    def pattern(self) -> str:
        """A regular expression for both Postgres (`~*`) and Python."""
        addresses = [_escaped(form) for email in self.emails for form in _forms(email)]
        found = [f"{_BEFORE}(?:{'|'.join(addresses)}){_AFTER}"] if addresses else []
        if self.customers:
            numbers = "|".join(map(str, self.customers))
            found.append(rf'customer(?:_id)?[\\]?"?[ ]?[:=][ ]?(?:{numbers})(?![0-9.])')
        return "|".join(found)

    def in_bytes(self, text: bytes) -> bool:
        lower = text.lower()
        return any(each in lower for each in self._byte_needles) and self._bytes.search(text) is not None

    def in_text(self, text: str) -> bool:
        return self._text.search(text) is not None

    def cut(self, value: Any) -> Any:
        """The parts of JSON that name the person: of lists the elements, of text the lines; None for none."""
        if isinstance(value, str):
            return self._lines(value)
        if isinstance(value, list):
            return [part for each in value if (part := self.cut(each)) is not None] or None
        if isinstance(value, dict):
            return self._object(value)
        return None

    def cut_json(self, text: str) -> Any:
        """`cut` of a text that may be JSON."""
        if text[:1] in "[{" and len(text) < _LARGEST:
            try:
                return self.cut(orjson.loads(text))
            except orjson.JSONDecodeError:
                pass
        return self.cut(text)

    def rows(self, table: bytes) -> Iterator[dict[str, Any]]:
        """The rows of an Arrow table that name the person."""
        for row in arrow_rows(table):
            if self._named(row):
                yield row

    @cached_property
    def _needles(self) -> tuple[str, ...]:
        return (*self._addresses, *map(str, self.customers))

    @cached_property
    def _addresses(self) -> tuple[str, ...]:
        return tuple(sorted({form for email in self.emails for form in _forms(email)}))

    @cached_property
    def _byte_needles(self) -> tuple[bytes, ...]:
        return tuple(each.encode() for each in self._needles)

    @cached_property
    def _text(self) -> re.Pattern[str]:
        return re.compile(self.pattern or r"(?!)", re.IGNORECASE)

    @cached_property
    def _bytes(self) -> re.Pattern[bytes]:
        return re.compile((self.pattern or r"(?!)").encode(), re.IGNORECASE)

    def _lines(self, text: str) -> str | None:
        if not self.in_text(text):
            return None
        return "\n".join(line for line in text.splitlines() if self.in_text(line)) or text

    def _object(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole where it is about the person itself, but for lists of others in it; else what of it names them."""
        if self._named(value):
            return {key: self._of_object(each) for key, each in value.items()}
        parts = {
            key: part
            for key, each in value.items()
            if (part := each if self.in_text(key) else self.cut(each)) is not None
        }
        return parts or None

    def _of_object(self, value: Any) -> Any:
        if isinstance(value, list) and any(self.cut(each) is not None for each in value):
            return self.cut(value)
        if isinstance(value, str) and "\n" in value:
            return self._lines(value) or value
        return value

    def _named(self, value: Mapping[str, Any]) -> bool:
        for key, each in value.items():
            if key in _WHOSE and isinstance(each, dict) and self._named(each):
                return True
            if isinstance(each, str) and "\n" not in each and self.in_text(each):
                return True
            if key in _KEYS and not isinstance(each, bool | float) and each in self.customers:
                return True
        return False


def mention_sql(columns: Iterable[str], arrow: Iterable[str] = ()) -> str:
    """A condition: one of the columns of `t` names the person of `%(needles)s` and `%(pattern)s`. "false" for none.

    `arrow`: columns with Arrow tables. An address is found in their bytes; a number would be found in anybody's, so of
    numbers the rows count that `%(tables)s` has the ids of.
    """
    found = [
        f"({any_needle(f'lower(t.{name}::text)')} AND t.{name}::text ~* %(pattern)s)" for name in map(quoted, columns)
    ]
    found += [any_needle(f"lower(encode(t.{name}, 'escape'))", "addresses") for name in map(quoted, arrow)]
    found += ["t.id = ANY(%(tables)s)"] if arrow else []
    return f"({' OR '.join(found)})" if found else "false"


def quoted(name: str) -> str:
    """A column's or table's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def arrow_rows(table: bytes) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow IPC stream, as JSON has them."""
    with pa.ipc.open_stream(table) as reader:
        for batch in reader:
            for start in range(0, batch.num_rows, 1000):
                yield from batch.slice(start, 1000).to_pylist()


def any_needle(text: str, needles: str = "needles") -> str:
    """A condition: one of the parameter's is in a text, which is lower case."""
    return f"EXISTS (SELECT FROM unnest(%({needles})s::text[]) AS needle WHERE position(needle IN {text}) > 0)"


def _forms(email: str) -> set[str]:
    """As text has it, and as JSON may have it."""
    return {email, json.dumps(email)[1:-1].lower()}


def _escaped(text: str) -> str:
    return "".join(each if each.isalnum() else f"\\{each}" for each in text)
