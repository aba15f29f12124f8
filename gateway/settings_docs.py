"""`docs/configuration.md`, made from the settings: `python -m gateway.settings_docs > docs/configuration.md`."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .settings import PREFIX, Settings
from .settings_errors import group_of, variable

INTRODUCTION = """\
# Configuration

Every limit, time-out and path is a setting. Values come from, the first one wins: arguments of the command line,
environment variables, a TOML file (`omniops.toml` in the working directory, or the file that `OMNIOPS_CONFIG` names).
Names are checked: what is missing, wrong or misspelled is named at start, with what to do. Lists in environment
variables are JSON. Times are in seconds. This page is made from `gateway/settings.py`; a test holds the two equal.

```toml
log_level = "info"

[pool]
warm = 4

[tenants.example.shop]
url = "https://shop.example.com"
consumer_key = "ck_..."       # better: OMNIOPS_TENANTS__EXAMPLE__SHOP__CONSUMER_KEY
consumer_secret = "cs_..."
```
"""

_BOUNDS = {Gt: ">", Ge: "≥", Lt: "<", Le: "≤"}


def configuration_page() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION, _table(Settings, ())]
    for title, model, path in _groups(Settings, ()):
        parts += [f"## {title}\n", _table(model, path)]
    return "\n".join(parts)


def _groups(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, type[BaseModel], tuple[str, ...]]]:
    for name, field in model.model_fields.items():
        below: tuple[str, ...] = (*path, name)
        annotation: Any = field.annotation
        if _is_table_of_groups(annotation):
            annotation, below = typing.get_args(annotation)[1], (*below, "NAME")
        group = group_of(annotation)
        if group is not None:
            yield ".".join(below), group, below
            yield from _groups(group, below)


def _table(model: type[BaseModel], path: tuple[str, ...]) -> str:
    lines = ["| setting | environment | default | what it is |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if group_of(field.annotation) is None and not _is_table_of_groups(field.annotation):
            location = (*path, name)
            lines.append(
                f"| `{'.'.join(location)}` | `{_variable(location)}` | {_default(field)} | {_description(field)} |"
            )
    return "\n".join(lines) + "\n"


def _is_table_of_groups(annotation: Any) -> bool:
    return typing.get_origin(annotation) is dict and group_of(typing.get_args(annotation)[1]) is not None


def _variable(location: tuple[str, ...]) -> str:
    return variable([part.upper() if len(location) == 1 else part for part in location], PREFIX)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "**required**"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{list(value)}`".replace("'", '"')
    return f"`{value}`" if isinstance(value, int | float | str | Path) else f"`{value!r}`"


def _description(field: FieldInfo) -> str:
    text = field.description or ""
    annotation = field.annotation
    if typing.get_origin(annotation) is Literal:
        text += f" One of {', '.join(f'`{choice}`' for choice in typing.get_args(annotation))}."
    bounds = [f"{sign} {_bound(item)}" for item in field.metadata if (sign := _BOUNDS.get(type(item)))]
    return text + (f" ({', '.join(bounds)})" if bounds else "")


def _bound(item: Any) -> str:
    return str(next(value for name in ("gt", "ge", "lt", "le") if (value := getattr(item, name, None)) is not None))


if __name__ == "__main__":
    print(configuration_page(), end="")
