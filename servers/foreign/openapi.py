"""Operations of an OpenAPI document (2.0, 3.0, 3.1) as definitions of tools, and what a call of each sends.

What the document says about servers and security is not followed: where calls go, and with which credentials, is
configured (`servers.foreign.requests`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from servers.tool import Effect

from .record import Definition
from .schema import LIMITS, Normaliser, Schema, SchemaError, SchemaLimits, checked_json, pointed
from .typing import Shaper
from .validation import pattern_works
from .words import one_line

Place = Literal["path", "query", "header"]
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")

#: Of a whole document; what one tool takes of it is bounded by `SchemaLimits`.
DOCUMENT = SchemaLimits(values=5_000_000, characters=200_000_000)

#: Headers that are the client's own, whatever a document says.
_OWN_HEADERS = frozenset({"accept", "authorization", "connection", "content-length", "content-type", "cookie", "host"})
_JSON = re.compile(r"(application|text)/([\w.+-]+\+)?json\b", re.IGNORECASE)


@dataclass(frozen=True)
class Argument:
    """Where an argument goes, and under which name."""

    place: Place
    name: str
    #: Lists in a query: one `name=value` for each item, or all in one, separated by this.
    separator: str = ""


@dataclass(frozen=True)
class Operation:
    """One operation: the definition of its tool, and how a call is made of its arguments."""

    definition: Definition
    method: str
    path: str
    arguments: Mapping[str, Argument]
    #: The argument that is the body, and how it is encoded: "json", "form" or "text".
    body: str = ""
    encoding: str = "json"

    @property
    def effect(self) -> Effect:
        """Until somebody classifies it: what gets nothing but an answer reads, all else is critical."""
        return "read" if self.method in ("GET", "HEAD") else "critical"


@dataclass(frozen=True)
class Document:
    """The operations, in the document's order, and the types that they share."""

    operations: tuple[Operation, ...]
    types: Shaper
    #: What was left out.
    notes: tuple[str, ...]


def read_document(document: Any, limits: SchemaLimits = LIMITS) -> Document:
    """Every operation of an OpenAPI document.

    Raises:
        SchemaError: it is none.
    """
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise SchemaError("it is no OpenAPI document: it has no paths")
    document = checked_json(document, DOCUMENT)
    normaliser = Normaliser(document, limits, pattern_works)
    found = tuple(_Reader(document, normaliser).operations())
    types = Shaper(normaliser.definitions, replace(limits, types=10 * limits.types))
    return Document(found, types, tuple(normaliser.notes))


@dataclass(frozen=True)
class _Reader:
    document: Mapping[str, Any]
    normaliser: Normaliser

    def operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            whole = self.resolved(item)
            for method in METHODS:
                if isinstance(whole.get(method), dict):
                    yield self.operation(path, method, whole, whole[method])

    def resolved(self, part: Any) -> Mapping[str, Any]:
        """A parameter, body, response or path that may stand elsewhere in the document."""
        for _ in range(10):
            if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):
                break
            part = pointed(self.document, part["$ref"])
        return part if isinstance(part, dict) else {}

    def operation(self, path: str, method: str, item: Mapping[str, Any], operation: Mapping[str, Any]) -> Operation:
        given = [*_list(item.get("parameters")), *_list(operation.get("parameters"))]
        parameters = {(p.get("in"), p.get("name")): p for p in map(self.resolved, given)}
        properties: dict[str, Any] = {}
        required: list[str] = []
        arguments: dict[str, Argument] = {}
        form: dict[str, Any] = {}
        form_required: list[str] = []
        body, encoding, body_needed = self._body(operation, [*parameters.values()])
        for (place, name), parameter in parameters.items():
            if place == "formData" and isinstance(name, str):
                form[name] = self._parameter(parameter)
                form_required += [name] if parameter.get("required") is True else []
            if place not in ("path", "query", "header") or not isinstance(name, str):
                continue
            if place == "header" and name.casefold() in _OWN_HEADERS:
                continue
            own = name if name not in properties else f"{place}_{name}"
            properties[own] = self._parameter(parameter)
            arguments[own] = Argument(place, name, _separator(parameter, place))
            required += [own] if place == "path" or parameter.get("required") is True else []
        if form:
            body, encoding, body_needed = _object(form, form_required), "form", bool(form_required)
        named = ""
        if body is not None:
            named = "body" if "body" not in properties else "request_body"
            properties[named] = body
            required += [named] if body_needed else []
        # A template may use what no parameter describes.
        for name in re.findall(r"\{([^{}]+)\}", path):
            if not any(a.place == "path" and a.name == name for a in arguments.values()):
                arguments[name] = Argument("path", name)
                properties[name] = {"type": "string"}
                required.append(name)
        definition = Definition(
            name=_name(path, method, operation),
            description=_description(path, method, operation),
            input_schema=self.normaliser.schema(_object(properties, required)),
            output_schema=self._result(operation),
            annotations={"readOnlyHint": method in ("get", "head")},
        )
        return Operation(definition, method.upper(), path, arguments, named, encoding)

    def _parameter(self, parameter: Mapping[str, Any]) -> Any:
        """A parameter's schema: in 2.0 the parameter itself, later in `schema` or `content`."""
        schema = parameter.get("schema")
        if schema is None and isinstance(parameter.get("content"), dict):
            schema = next((c.get("schema") for c in parameter["content"].values() if isinstance(c, dict)), None)
        if schema is None:
            left_out = ("name", "in", "required", "description", "example", "examples")
            schema = {key: value for key, value in parameter.items() if key not in left_out}
        if isinstance(schema, dict) and isinstance(parameter.get("description"), str):
            schema = {**schema, "description": parameter["description"]}
        return schema

    def _body(self, operation: Mapping[str, Any], parameters: list[Mapping[str, Any]]) -> tuple[Any, str, bool]:
        for parameter in parameters:
            if parameter.get("in") == "body":
                return parameter.get("schema", {}), "json", parameter.get("required") is True
        body = self.resolved(operation.get("requestBody"))
        content = body.get("content")
        if not isinstance(content, dict) or not content:
            return None, "json", False
        needed = body.get("required") is True
        for kind, described in content.items():
            if _JSON.match(kind):
                return _schema_of(described), "json", needed
        for kind, described in content.items():
            if kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
                return _schema_of(described), "form", needed
        return {"type": "string"}, "text", needed

    def _result(self, operation: Mapping[str, Any]) -> Schema | None:
        """What the first success answers, where that is JSON; None where nobody says."""
        responses = operation.get("responses")
        if not isinstance(responses, dict):
            return None
        for status in sorted(code for code in responses if code.upper() in ("2XX", "DEFAULT") or code.startswith("2")):
            response = self.resolved(responses[status])
            schema = response.get("schema")
            content = response.get("content")
            if isinstance(content, dict):
                schema = next((_schema_of(described) for kind, described in content.items() if _JSON.match(kind)), None)
            if isinstance(schema, dict) and schema and schema.get("type") != "file":
                return self.normaliser.schema(schema)
        return None


def _name(path: str, method: str, operation: Mapping[str, Any]) -> str:
    given = operation.get("operationId")
    return given if isinstance(given, str) and given.strip() else f"{method} {path}"


def _description(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [operation.get("summary"), operation.get("description")]
    said = [part for part in parts if isinstance(part, str) and part.strip()]
    if len(said) == 2 and said[1].startswith(said[0].rstrip(".")):
        said = said[1:]
    return "\n\n".join(said) or f"{method.upper()} {one_line(path, 100)}"


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _schema_of(described: Any) -> Any:
    schema = described.get("schema") if isinstance(described, dict) else None
    return schema if isinstance(schema, dict) else {}


def _separator(parameter: Mapping[str, Any], place: str) -> str:
    if place != "query":
        return ","
    style = parameter.get("style", parameter.get("collectionFormat"))
    if style in ("spaceDelimited", "ssv"):
        return " "
    if style in ("pipeDelimited", "pipes"):
        return "|"
    exploded = parameter.get("explode", "schema" in parameter or style == "multi")
    return "" if exploded is True else ","


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
