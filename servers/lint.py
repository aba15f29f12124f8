"""What a tool's record must have for people and models to use it well, and for the broker to hold it to its word."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, is_typeddict

import msgspec

from .rendering import Annotation, hints_of
from .tool import Tool

LONGEST_NAME = 40
#: A function name for direct calling is `server__tool`; OpenAI's API takes 64 characters.
LONGEST_FUNCTION = 64

_NAME = SERVER_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_READING = ("count", "describe", "find", "get", "list", "lookup", "read", "search", "show")
_WRITING = ("add", "cancel", "change", "create", "delete", "remove", "send", "set", "update")
#: What the broker gives a tool by its context.
_PINNED = ("tenant", "ctx", "session", "principal")


def problems(tool: Tool) -> list[str]:
    """What is wrong with a tool, one sentence each; none is well."""
    return [*_names(tool), *_words(tool), *_effects(tool), *_types(tool)]


def _names(tool: Tool) -> Iterator[str]:
    if not _NAME.fullmatch(tool.name) or len(tool.name) > LONGEST_NAME:
        yield f"its name is not words in lower case joined by _, at most {LONGEST_NAME} characters"
    if len(f"{tool.server}__{tool.name}") > LONGEST_FUNCTION:
        yield f"server and name together are longer than {LONGEST_FUNCTION - 2} characters"
    for parameter in tool.parameters:
        if not _NAME.fullmatch(parameter.name):
            yield f"the parameter {parameter.name!r} is not words in lower case joined by _"
        if parameter.name in _PINNED:
            yield f"the parameter {parameter.name!r} is no argument: the broker gives it by the context"


def _words(tool: Tool) -> Iterator[str]:
    if not 10 < len(tool.summary) <= 120:
        yield "the first line of its docstring does not say in 11 to 120 characters what it does"
    elif not tool.summary.endswith((".", ":")) and not tool.operations:
        yield "the first line of its docstring is no sentence: it ends without a full stop"


def _effects(tool: Tool) -> Iterator[str]:
    verb = tool.name.partition("_")[0]
    if not tool.roles:
        yield "no role may call it"
    if tool.effect == "read" and verb in _WRITING:
        yield f"it is called {verb}_..., yet its effect is read"
    if tool.effect != "read" and verb in _READING:
        yield f"it is called {verb}_..., yet its effect is {tool.effect}"
    if verb == "delete" and tool.effect != "critical":
        yield "it deletes, so a person should be asked: effect='critical'"
    if tool.effect == "read" and tool.revert:
        yield "it changes nothing, so nothing undoes it: leave out `revert`"


def _types(tool: Tool) -> Iterator[str]:
    try:
        tool.input_schema  # noqa: B018 - made to see whether it can be
    except (TypeError, ValueError) as error:
        yield f"its parameters have no JSON schema: {error}"
        return
    if tool.operations:
        return
    for parameter in tool.parameters:
        yield from (f"the parameter {parameter.name} {what}" for what in _unclear(parameter.annotation))
        if not _bounded(parameter.annotation):
            yield f"the parameter {parameter.name} has no bound: give its text or list a max_length"
    yield from (f"its result {what}" for what in dict.fromkeys(_unclear(tool.returns)))


def _unclear(annotation: Annotation, seen: frozenset[type] = frozenset()) -> Iterator[str]:
    """Types that say nothing. A bare Any with a description says it in words."""
    arguments: tuple[Annotation, ...] = typing.get_args(annotation)
    if arguments and arguments[0] is Any and any(isinstance(m, msgspec.Meta) and m.description for m in arguments):
        return
    if annotation is Any or annotation in (dict, list, tuple, set, object):
        yield f"is or holds a bare {getattr(annotation, '__name__', annotation)}: say of what"
    if is_typeddict(annotation) and annotation not in seen:
        for hint in hints_of(annotation).values():
            yield from _unclear(hint, seen | {annotation})
    for argument in arguments:
        if not isinstance(argument, str | int | msgspec.Meta | list):
            yield from _unclear(argument, seen)


def _bounded(annotation: Annotation, metas: tuple[msgspec.Meta, ...] = ()) -> bool:
    """Whether text and lists of an argument cannot be of any length; what is inside of a bounded list may."""
    origin: Annotation = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        more = tuple(meta for meta in arguments[1:] if isinstance(meta, msgspec.Meta))
        return _bounded(arguments[0], (*metas, *more))
    if origin in (typing.Union, types.UnionType):
        # A union with a number is an id: tools check those themselves.
        return int in arguments or all(_bounded(argument, metas) for argument in arguments)
    if annotation is str:
        return any(meta.max_length is not None or meta.pattern for meta in metas)
    if origin is list:
        return any(meta.max_length is not None for meta in metas)
    return True
