"""What a tool's record keeps of a foreign definition: wire names, schemas, the definition's hash, its named types."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from .schema import Schema
from .shapes import Record
from .validation import Problem, Validator

if TYPE_CHECKING:
    from servers.tool import Parameter


@dataclass(frozen=True)
class Definition:
    """A tool as its server describes it, nothing of it trusted. `annotations` are MCP's hints."""

    name: str
    description: str = ""
    input_schema: Any = field(default_factory=dict)
    output_schema: Any = None
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of all of it as JSON with sorted keys: another digest is another definition."""
        whole = [self.name, self.description, self.input_schema, self.output_schema, dict(self.annotations)]
        try:
            text = msgspec.json.encode(whole, order="deterministic")
        except RecursionError:
            text = b"nested too deeply to be used"
        except (ValueError, TypeError, OverflowError):  # lone surrogates, and what is no JSON
            text = repr(whole).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()


@dataclass(frozen=True)
class Foreign:
    """The foreign part of a record."""

    wire_name: str
    #: By parameter: the argument's name upstream, and its schema.
    wire_names: Mapping[str, str]
    schemas: Mapping[str, Schema]
    #: What arguments and result must fit, in wire names; None where the server declares no result.
    arguments: Schema
    result: Schema | None
    digest: str
    #: The named types of its signature, and theirs.
    types: tuple[Record, ...] = ()
    #: The parameter whose keys are arguments of their own; "" where there is none.
    spread: str = ""
    #: What was left out of the definition, for the one who configures the server.
    notes: tuple[str, ...] = ()
    #: Results that the return type was learned from; 0 where it is declared, or unknown.
    observed: int = 0
    #: Told when a result does not fit what its server declares.
    broken: Callable[[], None] | None = field(default=None, compare=False, repr=False)

    def to_wire(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the server names them."""
        wire = {self.wire_names[name]: value for name, value in args.items() if name != self.spread}
        more = args.get(self.spread) if self.spread else None
        return {**more, **wire} if isinstance(more, Mapping) else wire

    def input_schema(self, parameters: Iterable[Parameter]) -> dict[str, Any]:
        """JSON schema of the arguments by their names here, self-contained."""
        parameters = tuple(parameters)
        schema = {
            "type": "object",
            "properties": {p.name: self.schemas[p.name] for p in parameters},
            "required": [p.name for p in parameters if p.required],
            "additionalProperties": False,
        }
        definitions = self.arguments.get("$defs") if isinstance(self.arguments, dict) else None
        return schema | ({"$defs": definitions} if definitions else {})

    def parameter_of(self, wire: str) -> str:
        return self._parameters.get(wire, self.spread or wire)

    def argument_problems(self, args: Mapping[str, Any]) -> list[Problem]:
        return self._argument_validator.problems(self.to_wire(args))

    def result_problems(self, value: object) -> list[Problem]:
        return self._result_validator.problems(value) if self._result_validator else []

    @cached_property
    def _parameters(self) -> dict[str, str]:
        return {wire: name for name, wire in self.wire_names.items()}

    @cached_property
    def _argument_validator(self) -> Validator:
        return Validator(self.arguments)

    @cached_property
    def _result_validator(self) -> Validator | None:
        return None if self.result is None else Validator(self.result)
