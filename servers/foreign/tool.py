"""A foreign definition as a tool's record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from servers.context import ToolContext
from servers.tool import OMITTED, OPERATOR, REQUIRED, Effect, Parameter, Role, Tool

from .names import parameter_name, tool_name, type_name
from .record import Definition, Foreign
from .schema import LIMITS, Normaliser, Schema, SchemaError, SchemaLimits, checked_json, references
from .settling import unify
from .shapes import ANY, FREE, INT, MapOf, Record, Shape, renamed
from .typing import Shaper, words_of
from .validation import Validator, pattern_works
from .words import one_line, titled

#: Sends a call: the context, and arguments in the server's own names. Returns the result as plain data.
Call: TypeAlias = Callable[[ToolContext, dict[str, Any]], Awaitable[Any]]

#: Longer defaults are not shown.
_LONGEST_DEFAULT = 60


class ForeignToolError(Exception):
    """The definition cannot become a tool. The message names it and is safe to show."""


def foreign_tool(
    server: str,
    definition: Definition,
    *,
    call: Call,
    effect: Effect = "critical",
    roles: tuple[Role, ...] = OPERATOR,
    revert: str = "",
    limits: SchemaLimits = LIMITS,
    shared: Shaper | None = None,
    broken: Callable[[], None] | None = None,
) -> Tool:
    """The tool `server.<name>`, its names mapped where they are no identifiers.

    `call` gets arguments that fit the definition's schema; its result is checked against the declared output schema.
    With `shared` the definition's schemas are normal already, and its types are among those of a whole document.
    `broken` is told when a result does not fit.

    Raises:
        ForeignToolError: the schema is none, is too large, or two of its parameters become one.
    """
    shown = one_line(definition.name, 80)
    try:
        read = _read(definition, limits) if shared is None else _read_shared(definition, shared)
        parameters, wire_names, spread = _parameters(read, limits)
        schemas = _schemas(read, wire_names, spread)
    except (SchemaError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ForeignToolError(f"The tool {shown!r} of the server {server} cannot be used: {reason}.") from None
    foreign = Foreign(
        wire_name=definition.name,
        wire_names=wire_names,
        schemas=schemas,
        arguments=read.arguments,
        result=read.result,
        digest=definition.digest,
        types=tuple(read.records.values()),
        spread=spread,
        notes=read.notes,
        broken=broken,
    )

    async def implementation(ctx: ToolContext, /, **args: Any) -> Any:
        return await call(ctx, foreign.to_wire(args))

    return Tool(
        server=server,
        name=tool_name(definition.name),
        doc=_doc(definition, limits),
        parameters=parameters,
        returns=read.returns,
        effect=effect,
        revert=revert,
        roles=roles,
        implementation=implementation,
        foreign=foreign,
    )


@dataclass(frozen=True)
class _Read:
    """A definition's schemas in one form, and the shapes that come of them."""

    arguments: dict[str, Any]
    result: Schema | None
    #: The arguments' own schema, references and `allOf` merged.
    flat: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    more: Shape
    returns: Shape
    records: Mapping[str, Record]
    notes: tuple[str, ...]


def _read(definition: Definition, limits: SchemaLimits) -> _Read:
    prefix = definition.name[:200]
    given, notes = _normal({} if definition.input_schema is None else definition.input_schema, limits)
    shaper = Shaper(_definitions(given), limits, {type_name(prefix), tool_name(definition.name)})
    flat = _with_branches(shaper, given)
    shapes = _shapes(shaper, flat, prefix)
    more = shaper.shape(flat.get("additionalProperties", True), f"{prefix} value")
    records = dict(shaper.records)
    result: Schema | None = None
    returns: Shape = ANY
    if definition.output_schema is not None:
        result, more_notes = _normal(definition.output_schema, limits)
        notes += more_notes
        other = Shaper(_definitions(result), limits, {*shaper.taken} - set(records))
        returns = other.shape(result, f"{prefix} result")
        renames = unify(records, other.records, prefix)
        returns = renamed(returns, lambda name: renames.get(name, name))
    arguments = given if isinstance(given, dict) else {}
    return _Read(arguments, result, flat, shapes, more, returns, records, tuple(notes))


def _read_shared(definition: Definition, shaper: Shaper) -> _Read:
    prefix = definition.name[:200]
    given, result = definition.input_schema, definition.output_schema
    shaper.begin()
    flat = _with_branches(shaper, given)
    shapes = _shapes(shaper, flat, prefix)
    returns = ANY if result is None else shaper.shape(result, f"{prefix} result")
    records = shaper.closure([*shapes.values(), returns])
    return _Read(given, result, flat, shapes, ANY, returns, records, ())


def _shapes(shaper: Shaper, flat: Mapping[str, Any], prefix: str) -> dict[str, Shape]:
    """The parameters' shapes, by wire name."""
    properties = flat.get("properties", {})
    return {name: shaper.shape(schema, f"{prefix} {name[:100]}") for name, schema in properties.items()}


def _normal(schema: Any, limits: SchemaLimits) -> tuple[Schema, list[str]]:
    """Raises SchemaError."""
    if not isinstance(schema, Mapping | bool):
        raise SchemaError(f"it has {one_line(repr(schema), 60)} where a JSON schema should be")
    document = checked_json(schema, limits)
    normaliser = Normaliser(document, limits, pattern_works)
    made = normaliser.schema(document)
    Validator(made)  # now, not at the first call
    return made, normaliser.notes


def _definitions(schema: Schema) -> Mapping[str, Schema]:
    return schema.get("$defs", {}) if isinstance(schema, dict) else {}


def _with_branches(shaper: Shaper, schema: Schema) -> dict[str, Any]:
    """The arguments' schema with every property that any branch of it knows."""
    flat = shaper.flat(schema)
    if not isinstance(flat.get("type", "object"), list) and flat.get("type", "object") != "object":
        raise SchemaError(f"its arguments are of type {flat['type']}, not an object")
    for keyword in ("anyOf", "oneOf"):
        for branch in flat.get(keyword, ()):
            for name, inner in shaper.flat(branch).get("properties", {}).items():
                flat.setdefault("properties", {}).setdefault(name, inner)
    for name in flat.get("required", ()):
        flat.setdefault("properties", {}).setdefault(name, True)
    return flat


def _parameters(read: _Read, limits: SchemaLimits) -> tuple[tuple[Parameter, ...], dict[str, str], str]:
    """The parameters, those that are required first; their wire names; the one whose keys are arguments themselves.

    Raises:
        SchemaError: two wire names become one parameter.
    """
    required = read.flat.get("required", ())
    wire_names: dict[str, str] = {}
    made = []
    for wire, shape in read.shapes.items():
        schema = read.flat["properties"][wire]
        if schema is False:
            continue
        name = parameter_name(wire)
        other = wire_names.setdefault(name, wire)
        if other != wire:
            raise SchemaError(f"its parameters {one_line(other, 80)!r} and {one_line(wire, 80)!r} both become {name}")
        default = REQUIRED if wire in required else _default(schema, shape, read.arguments)
        made.append(Parameter(name, shape, default, words_of(schema, limits)))
    spread = ""
    if read.flat.get("additionalProperties", False) is not False or read.flat.get("patternProperties"):
        spread = "more"
        while spread in wire_names:
            spread += "_"
        made.append(Parameter(spread, MapOf(read.more), OMITTED, "further arguments by name"))
    return tuple(sorted(made, key=lambda p: not p.required)), wire_names, spread


def _schemas(read: _Read, wire_names: Mapping[str, str], spread: str) -> dict[str, Schema]:
    """Each parameter's own schema."""
    properties = read.flat.get("properties", {})
    made: dict[str, Schema] = {name: {} if properties[w] is True else properties[w] for name, w in wire_names.items()}
    if spread:
        extra = read.flat.get("additionalProperties", True)
        made[spread] = {"type": "object", "additionalProperties": extra}
    return made


def _default(schema: Schema, shape: Shape, root: Mapping[str, Any]) -> Any:
    """The declared default where it is a real one: it fits its own schema, and can be shown. It is never sent: whoever
    leaves an argument out leaves the default to the server."""
    if isinstance(schema, bool) or "default" not in schema:
        return OMITTED
    value = schema["default"]
    if shape == INT and isinstance(value, float) and value == int(value):
        value = int(value)
    if len(repr(value)) > _LONGEST_DEFAULT or (isinstance(value, dict) and value and shape != FREE):
        return OMITTED
    refers = any(True for _ in references(schema))
    alone = schema | ({"$defs": root["$defs"]} if refers and "$defs" in root else {})
    return value if Validator(alone).fits(value) else OMITTED


def _doc(definition: Definition, limits: SchemaLimits) -> str:
    text = titled(definition.description, limits.description)
    title = definition.annotations.get("title")
    if not text:
        text = titled(title if isinstance(title, str) else definition.name, 200)
    return text or "No description."
