"""What is wrong with the settings, in words: which one, where it may be set, what it wants. Never a secret's value."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Location = Sequence[str | int]

#: Types whose values are shown in messages. A string may be a secret that was put into the wrong place.
_SHOWN = (int, float, bool, Path)

_ALIASES = {"DATABASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"}


def explain(error: ValidationError, model: type[BaseModel], prefix: str, file: str) -> list[str]:
    """One paragraph per wrong or missing setting of `model`. `file`: the one that was read."""
    return [_explain_one(details, model, prefix, file) for details in error.errors(include_url=False)]


def explain_variables(names: Iterable[str], model: type[BaseModel], prefix: str) -> list[str]:
    """One paragraph per environment variable that looks like a setting and is none."""
    known = {prefix + name.upper() for name in model.model_fields} | {f"{prefix}CONFIG"}
    wrong = [name for name in names if name.startswith(prefix) and name.partition("__")[0] not in known]
    return [f"{name} is set, but there is no such setting.{_suggest(name, known)}" for name in sorted(wrong)]


def explain_json(message: str, environment: Iterable[str], prefix: str) -> str:
    """pydantic-settings says in which group a variable is no JSON where it should be; this names the variable."""
    group = re.search(r'field "(\w+)"', message)
    name = prefix + group[1].upper() if group else prefix
    candidates = sorted(v for v in environment if v == name or v.startswith(name + "__"))
    return f'{" or ".join(candidates) or name} cannot be read: lists and tables are given as JSON, such as ["numpy"].'


def variable(location: Location, prefix: str) -> str:
    """The environment variable of a setting: ("pool", "warm") is OMNIOPS_POOL__WARM."""
    name = "__".join(str(part).upper() for part in location)
    return name if name in _ALIASES else prefix + name


def find_field(model: type[BaseModel], location: Location) -> FieldInfo | None:
    """The field at a path of names, through groups and tables of groups."""
    kind: Any = model
    found: FieldInfo | None = None
    for part in location:
        group = group_of(kind)
        if group is not None:
            found = group.model_fields.get(str(part))
            if found is None:
                return None
            kind = found.annotation
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            break
    return found


def group_of(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next((group for part in typing.get_args(annotation) if (group := group_of(part))), None)
    return None


def _explain_one(details: ErrorDetails, model: type[BaseModel], prefix: str, file: str) -> str:
    location = [str(part).lower() if str(part) in _ALIASES else str(part) for part in details["loc"]]
    key, name = ".".join(location), variable([p.upper() if p.upper() in _ALIASES else p for p in location], prefix)
    if details["type"] == "extra_forbidden":
        siblings = find_siblings(model, location)
        return f"{key} ({name}) is set, but there is no such setting.{_suggest(location[-1], siblings)}"
    field = find_field(model, location)
    what = f"{field.description} " if field is not None and field.description else ""
    where = f"Set {key} in {file}, or the environment variable {name}."
    if details["type"] == "missing":
        return f"{key} is missing. {what}{where}"
    value = f" is {details['input']!r:.60}" if field is not None and _is_shown(field.annotation) else ""
    return f"{key}{value}: {details['msg']}. {what}{where}"


def find_siblings(model: type[BaseModel], location: Location) -> list[str]:
    """The names that the last part of a path could have had."""
    parent = find_field(model, location[:-1])
    group: type[BaseModel] | None = model
    if parent is not None:
        annotation = parent.annotation
        group = group_of(typing.get_args(annotation)[1] if typing.get_origin(annotation) is dict else annotation)
    return list(group.model_fields) if group is not None else []


def _is_shown(annotation: Any) -> bool:
    options = typing.get_args(annotation) if typing.get_origin(annotation) is types.UnionType else (annotation,)
    return all(o in _SHOWN or o is type(None) or typing.get_origin(o) is Literal for o in options)


def _suggest(name: str, candidates: Iterable[str] | Mapping[str, Any]) -> str:
    likely = difflib.get_close_matches(name, list(candidates), n=1)
    return f" Did you mean {likely[0]}?" if likely else ""
