"""A tool: one typed function and the one record about it, from which every surface is made.

    @tool(effect="read", roles=EVERYBODY)
    async def lookup_order(ctx: ToolContext, *, order_id: int | str) -> Order:
        \"\"\"One order by number or id.\"\"\"

Parameters are keyword-only. `Annotated[..., msgspec.Meta(...)]` gives a parameter its description and bounds.
"""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import msgspec

from .checking import check_arguments, check_foreign_arguments, check_foreign_result
from .context import ToolContext
from .errors import OutputSchemaError, ToolError
from .foreign.record import Foreign
from .preview import MakePreview, MakeUndo
from .rendering import Annotation, annotation_of, signature_text
from .table import columns_text, row_type, schema_of, to_arrow

Effect = Literal["read", "write", "critical"]
#: From harmless to grave.
EFFECTS: tuple[Effect, ...] = ("read", "write", "critical")

#: Who a session is: `agent` talks to a customer, `analyst` looks at the shop's figures, `operator` runs the shop.
Role = Literal["agent", "analyst", "operator"]
EVERYBODY: tuple[Role, ...] = ("agent", "analyst", "operator")
CONVERSATION: tuple[Role, ...] = ("agent", "operator")
STAFF: tuple[Role, ...] = ("analyst", "operator")
OPERATOR: tuple[Role, ...] = ("operator",)

#: Of a tool that streams, an async generator function.
Implementation = Callable[..., Awaitable[Any]] | Callable[..., AsyncIterator[Any]]

#: Stands for "no default" where None is a possible default.
REQUIRED = inspect.Parameter.empty


class _Omitted:
    """Stands for a default that only the tool's server knows: the argument is left out."""

    def __repr__(self) -> str:
        return "..."


OMITTED = _Omitted()


@dataclass(frozen=True)
class Parameter:
    """One keyword-only parameter. `annotation` holds the bounds and the description as msgspec.Meta.

    Where it is a foreign tool's shape, the description is beside it.
    """

    name: str
    annotation: Annotation
    default: Any = REQUIRED
    words: str = ""

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def description(self) -> str:
        if self.words:
            return self.words
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
    #: Sessions that may call it; those that are not named may not.
    roles: tuple[Role, ...] = OPERATOR
    #: Names of the tenant's credentials that it gets by its context.
    credentials: tuple[str, ...] = field(default=(), kw_only=True)
    implementation: Implementation = field(repr=False, kw_only=True)
    #: Name of the parameter that says how much money moves; "" where none does.
    amount: str = ""
    #: What a person is shown who is asked about a call, beside its arguments.
    preview: MakePreview | None = field(default=None, repr=False, kw_only=True)
    #: The call that takes an applied one back.
    undo: MakeUndo | None = field(default=None, repr=False, kw_only=True)
    #: A dispatcher's targets by operation name; empty for an ordinary tool.
    operations: Mapping[str, Tool] = field(default_factory=dict, repr=False, kw_only=True)
    #: Under which its runs are counted, where it is long work (`servers.work`); "" of every other tool.
    workload: str = field(default="", kw_only=True)
    #: Where it comes from another's server: its JSON schemas, which say what fits in place of the annotations.
    foreign: Foreign | None = field(default=None, repr=False, kw_only=True)

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
    def streams(self) -> bool:
        """True where the result comes in parts: the tool is an async generator."""
        return _is_stream(self.returns)

    @cached_property
    def part(self) -> Annotation:
        """The type of one part of what streams; of the whole result where it does not."""
        return typing.get_args(self.returns)[0] if self.streams else self.returns

    @cached_property
    def row(self) -> type | None:
        """Names and types of the columns, as a TypedDict, where the result (or each part) is a table."""
        return row_type(self.part)

    @cached_property
    def shown_doc(self) -> str:
        """The docstring with what a DataFrame that it returns has in it: its type does not say that."""
        return f"{self.doc}\n\nColumns: {columns_text(self.row)}." if self.row is not None else self.doc

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
        if self.foreign is not None:
            return self.foreign.input_schema(self.parameters)
        _, definitions = msgspec.json.schema_components([self.input_struct], ref_template="#/$defs/{name}")
        schema = dict(definitions.pop(self.name))
        schema.pop("title", None)
        schema |= {"additionalProperties": False, "required": schema.get("required", [])}
        return schema | ({"$defs": definitions} if definitions else {})

    @cached_property
    def output_schema(self) -> dict[str, Any] | bool | None:
        """JSON schema of the result, self-contained; of a table its rows, of a stream all parts together. None where
        its server declares none, and for a dispatcher.
        """
        if self.foreign is not None:
            return self.foreign.result
        if self.operations:
            return None  # as many as operations: no schema says which
        whole: Annotation = self.part
        if self.row is not None or self.streams:
            whole = types.GenericAlias(list, (self.row or self.part,))
        (schema,), definitions = msgspec.json.schema_components([whole], ref_template="#/$defs/{name}")
        if set(schema) == {"$ref"}:
            schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return dict(schema) | ({"$defs": definitions} if definitions else {})

    def validate(self, args: Mapping[str, object]) -> dict[str, Any]:
        """The arguments in their declared types, defaults filled in (a foreign server fills in its own).

        Raises:
            ToolInputError: naming every problem, the valid parameters and the likely one.
        """
        if self.foreign is not None:
            return check_foreign_arguments(self.name, self.qualified_name, self.parameters, self.foreign, args)
        return check_arguments(self.name, self.qualified_name, self.parameters, args)

    def check_result(self, value: object) -> Any:
        """`value` as the declared return type has it; keys that it does not declare are dropped, foreign ones kept. A
        table is a pyarrow.Table then; of what streams, `value` is one part.

        Raises:
            OutputSchemaError: where it does not fit.
        """
        if self.operations:
            return value  # its operation has checked it
        if self.foreign is not None:
            return check_foreign_result(self.name, self.qualified_name, self.foreign, value)
        if self.row is not None:
            return to_arrow(self.name, value, self.row)
        try:
            return msgspec.convert(value, self.part)
        except msgspec.ValidationError as error:
            raise OutputSchemaError(
                f"{self.name}: the result does not fit the declared type {annotation_of(self.part)}: {error}",
                tool=self.qualified_name,
            ) from None

    async def call(self, ctx: ToolContext, args: Mapping[str, object]) -> Any:
        """Validate, run, check.

        Raises:
            ToolError: every error carries this tool's name.
        """
        checked = self.validate(args)
        try:
            return self.check_result(await self._answer(ctx, checked))
        except ToolError as error:
            error.tool = error.tool or self.qualified_name
            raise

    async def stream(self, ctx: ToolContext, args: Mapping[str, object]) -> AsyncGenerator[Any, None]:
        """`call` for a tool that streams: its parts, each checked. Close it where it is not read to its end.

        Raises:
            ToolError: every error carries this tool's name.
        """
        checked = self.validate(args)
        parts = self.implementation(ctx, **checked)
        assert isinstance(parts, AsyncGenerator)
        try:
            async with contextlib.aclosing(parts):
                async for part in parts:
                    yield self.check_result(part)
        except ToolError as error:
            error.tool = error.tool or self.qualified_name
            raise

    async def _answer(self, ctx: ToolContext, checked: Mapping[str, Any]) -> Any:
        answer = self.implementation(ctx, **checked)
        assert isinstance(answer, Awaitable)
        return await answer


def tool(
    *,
    effect: Effect,
    roles: tuple[Role, ...] = OPERATOR,
    revert: str = "",
    name: str = "",
    credentials: tuple[str, ...] = (),
    amount: str = "",
    preview: MakePreview | None = None,
    undo: MakeUndo | None = None,
) -> Callable[[Implementation], Tool]:
    """Make an async function of a module in `servers/<server>/` into the tool `<server>.<function>`.

    Who may call it is denied by default: where no `roles` are named, operators alone. `credentials`: those of the
    tenant's that it finds in `ctx.credentials`; a call for a tenant that has not set them all is refused. `amount`,
    `preview` and `undo` are for people who approve calls and take them back.
    """

    def decorate(function: Implementation) -> Tool:
        parameters = parameters_of(function)
        returns = typing.get_type_hints(function, include_extras=True)["return"]
        _check_returns(function, returns, effect)
        return Tool(
            server=server_of(function),
            name=name or function.__name__,
            doc=inspect.getdoc(function) or "",
            parameters=parameters,
            returns=returns,
            effect=effect,
            revert=revert,
            roles=roles,
            credentials=credentials,
            amount=amount,
            preview=preview,
            undo=undo,
            implementation=function,
        )

    return decorate


def server_of(function: Implementation) -> str:
    parts = function.__module__.split(".")
    return parts[1] if parts[0] == "servers" and len(parts) > 1 else parts[-1]


def parameters_of(function: Implementation) -> tuple[Parameter, ...]:
    """The keyword-only parameters after `ctx`.

    Raises:
        TypeError: the definition is unusable as a tool; raised while the module is imported.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    where = f"{function.__module__}.{function.__name__}"
    if not inspect.iscoroutinefunction(function) and not inspect.isasyncgenfunction(function):
        raise TypeError(f"{where}: a tool is an async function")
    if "return" not in hints or hints["return"] is types.NoneType:
        raise TypeError(f"{where}: a tool declares what it returns")
    context, *rest = inspect.signature(function).parameters.values()
    if context.name != "ctx" or any(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in rest):
        raise TypeError(f"{where}: a tool takes `ctx` first and keyword-only parameters after it")
    return tuple(Parameter(p.name, hints[p.name], p.default) for p in rest)


def _check_returns(function: Implementation, returns: Annotation, effect: Effect) -> None:
    """Raises TypeError where a table or a stream is declared that cannot be."""
    where = f"{function.__module__}.{function.__name__}"
    streams = _is_stream(returns)
    if inspect.isasyncgenfunction(function) != streams:
        raise TypeError(f"{where}: a tool that yields its result in parts, and no other, returns an AsyncIterator[...]")
    if streams and effect != "read":
        raise TypeError(f"{where}: only a read may stream; a write is over or not when its caller stops reading")
    row = row_type(typing.get_args(returns)[0] if streams else returns)
    if row is not None:
        schema_of(row)


def _is_stream(returns: Annotation) -> bool:
    origin: Annotation = typing.get_origin(returns)
    return origin is AsyncIterator
