"""Parameters that several tools take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from msgspec import Meta

from ..errors import ToolInputError

Limit: TypeAlias = Annotated[int, Meta(description="most rows that are returned", ge=1, le=1000)]
Search: TypeAlias = Annotated[str, Meta(description="words that must occur; '' for all", max_length=200)]
Amount: TypeAlias = Annotated[
    str, Meta(description="money in the store's currency, such as '12.50'", pattern=r"^\d{1,10}(\.\d{1,2})?$")
]
#: "" ends what was set, such as a sale.
AmountOrNone: TypeAlias = Annotated[
    str, Meta(description="such as '12.50'; '' for none", pattern=r"^(\d{1,10}(\.\d{1,2})?)?$")
]
Day: TypeAlias = Annotated[str, Meta(description="a day, such as '2026-11-22'", pattern=r"^\d{4}-\d\d-\d\d$")]
Moment: TypeAlias = Annotated[
    str, Meta(description="a time in UTC, such as '2026-11-22T14:00:00'; '' for any", max_length=40)
]
Descending: TypeAlias = Annotated[bool, Meta(description="largest or newest first")]
ProductId: TypeAlias = Annotated[int, Meta(description="a product's id", ge=1)]
VariationId: TypeAlias = Annotated[int, Meta(description="a variation's id", ge=1)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
Text: TypeAlias = Annotated[str, Meta(max_length=20_000)]
StockStatus: TypeAlias = Literal["instock", "outofstock", "onbackorder"]


class Removed(TypedDict):
    id: int
    name: Annotated[str, Meta(description="what it was called; '' where an earlier attempt had removed it")]
    permanently: Annotated[bool, Meta(description="false: it is in the trash and can be restored")]


def moment(name: str, value: str) -> str:
    """A time as wc/v3 takes it with `dates_are_gmt`: UTC, without a zone.

    Raises:
        ToolInputError: it is no ISO 8601 time.
    """
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise ToolInputError(
            f"{name} is {value!r}, which is no time in ISO 8601, such as '2026-11-22T14:00:00'."
        ) from None
    return (read.astimezone(UTC) if read.tzinfo else read).strftime("%Y-%m-%dT%H:%M:%S")


def times(**given: str) -> dict[str, str]:
    """The query for the times that are not ""."""
    read = {name: moment(name, value) for name, value in given.items() if value}
    return read | ({"dates_are_gmt": "true"} if read else {})


def query(**given: str | int | None) -> dict[str, str | int]:
    """The query of what is neither None nor ""."""
    return {name: value for name, value in given.items() if value not in (None, "")}


def fields(**given: Any) -> dict[str, Any]:
    """The body of what is not None.

    Raises:
        ToolInputError: there is nothing to change.
    """
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise ToolInputError(f"Nothing to change: give at least one of {', '.join(given)}.")
    return body


def named(raw: Mapping[str, Any], key: str = "name") -> str:
    return str(raw.get(key) or "")
