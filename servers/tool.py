"""A tool: one typed function and the one record about it, from which every surface is made.

    @tool(effect="read")
    async def lookup_order(ctx: ToolContext, *, order_id: int | str) -> Order:
        \"\"\"One order by number or id.\"\"\"

Parameters are keyword-only. `Annotated[..., msgspec.Meta(...)]` gives a parameter its description and bounds.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import msgspec

from .checking import check_arguments
from .context import ToolContext
from .errors import OutputSchemaError, ToolError
from .rendering import Annotation, annotation_of, signature_text

Effect = Literal["read", "write", "critical"]
#: From harmless to grave.
EFFECTS: tuple[Effect, ...] = ("read", "write", "critical")
Implementation = Callable[..., Awaitable[Any]]

#: Stands for "no default" where None is a possible default.
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One keyword-only parameter. `annotation` holds the bounds and the description as msgspec.Meta."""

    name: str
    annotation: Annotation
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def description(self) -> str:
        metas = getattr(self.annotation, "__metadata__", ())
        return next((m.description for m in metas if isinstance(m, msgspec.Meta) and m.description), "")


@dataclass(frozen=True)
class Tool:
    """The record. Everything else about a tool (schema, stub, validation, search entry) comes from here."""

    server: str
    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    returns: Annotation
    effect: Effect
    #: Name of the tool, or the action in words, that undoes this one; "" where nothing does.
    revert: str = ""
    implementation: Implementation = field(repr=False, kw_only=True)
    #: A dispatcher's targets by operation name; empty for an ordinary tool.
    operations: Mapping[str, Tool] = field(default_factory=dict, repr=False, kw_only=True)

    @property
    def qualified_name(self) -> str:
        return f"{self.server}.{self.name}"

    @cached_property
    def signature(self) -> str:
        """As a person writes it: `lookup_order(*, order_id: int | str) -> Order`."""
        return signature_text(self.name, self.parameters, self.returns)

    @cached_property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]

    @cached_property
    def input_struct(self) -> type[msgspec.Struct]:
        """The parameters as one struct."""
        fields = [
            (p.name, p.annotation) if p.required else (p.name, p.annotation, msgspec.field(default=p.default))
            for p in self.parameters
        ]
        return msgspec.defstruct(self.name, fields, kw_only=True, forbid_unknown_fields=True)

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, self-contained, for direct tool calling and MCP."""
        _, definitions = msgspec.json.schema_components([self.input_struct], ref_template="#/$defs/{name}")
        schema = dict(definitions.pop(self.name))
        schema.pop("title", None)
        schema |= {"additionalProperties": False, "required": schema.get("required", [])}
        return schema | ({"$defs": definitions} if definitions else {})

    def validate(self, args: Mapping[str, object]) -> dict[str, Any]:
        """The arguments in their declared types, defaults filled in.

        Raises:
            ToolInputError: naming every problem, the valid parameters and the likely one.
        """
        return check_arguments(self.name, self.qualified_name, self.parameters, args)

    def check_result(self, value: object) -> Any:
        """`value` as the declared return type has it; keys that it does not declare are dropped.

        Raises:
            OutputSchemaError: where it does not fit.
        """
        if self.operations:
            return value  # its operation has checked it
        try:
            return msgspec.convert(value, self.returns)
        except msgspec.ValidationError as error:
            raise OutputSchemaError(
                f"{self.name}: the result does not fit the declared type {annotation_of(self.returns)}: {error}",
                tool=self.qualified_name,
            ) from None

    async def call(self, ctx: ToolContext, args: Mapping[str, object]) -> Any:
        """Validate, run, check.

        Raises:
            ToolError: every error carries this tool's name.
        """
        checked = self.validate(args)
        try:
            return self.check_result(await self.implementation(ctx, **checked))
        except ToolError as error:
            error.tool = error.tool or self.qualified_name
            raise


def tool(*, effect: Effect, revert: str = "", name: str = "") -> Callable[[Implementation], Tool]:
    """Make an async function of a module in `servers/<server>/` into the tool `<server>.<function>`."""

    def decorate(function: Implementation) -> Tool:
        return Tool(
            server=_server_of(function),
            name=name or function.__name__,
            doc=inspect.getdoc(function) or "",
            parameters=_parameters(function),
            returns=typing.get_type_hints(function, include_extras=True)["return"],
            effect=effect,
            revert=revert,
            implementation=function,
        )

    return decorate


def _server_of(function: Implementation) -> str:
    parts = function.__module__.split(".")
    return parts[1] if parts[0] == "servers" and len(parts) > 1 else parts[-1]


def _parameters(function: Implementation) -> tuple[Parameter, ...]:
    """The keyword-only parameters after `ctx`.

    Raises:
        TypeError: the definition is unusable as a tool; raised while the module is imported.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    where = f"{function.__module__}.{function.__name__}"
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{where}: a tool is an async function")
    if "return" not in hints or hints["return"] is types.NoneType:
        raise TypeError(f"{where}: a tool declares what it returns")
    context, *rest = inspect.signature(function).parameters.values()
    if context.name != "ctx" or any(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in rest):
        raise TypeError(f"{where}: a tool takes `ctx` first and keyword-only parameters after it")
    return tuple(Parameter(p.name, hints[p.name], p.default) for p in rest)
