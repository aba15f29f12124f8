"""From what a checker saw to findings: which are certain, and what each says.

Certain is what no run can get past. A call that does not fit its tool's record: the broker's own validation says so. A
name that the kernel does not have. A key or an operation that a result's type has not, where three things hold: the
broker holds the tool to that type; nothing in the session contradicts the checker's types (`_CONTRADICTIONS`); and no
code of the session may have given the key. What stands in a `try` that catches is never certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.checking import words
from gateway.checking.messages import Call, Diagnosis, Import, Reading
from gateway.checking.stubs import OWN, Stubs
from gateway.checking.types import Finding, Kind
from kernel_pool.sandbox.tool_index import Tool as IndexTool
from kernel_pool.sandbox.tool_index import misuse
from servers.errors import ToolInputError

#: After one of these the checker takes variables for something else than what they are.
_CONTRADICTIONS = {
    "invalid-assignment",
    "invalid-return-type",
    "invalid-parameter-default",
    "invalid-yield",
    "conflicting-declarations",
    "invalid-declaration",
    "invalid-attribute-access",
    "non-literal-typed-dict-key",
}
_KEY = re.compile(r'Unknown key "(.*?)" for TypedDict `(\w+)`')
_ATTRIBUTE = re.compile(r"Object of type `(.+)` has no attribute `(\w+)`")
_OBJECT = re.compile(r"Object of type `(.+)` is not")
_SYMBOL = re.compile(r"Unsupported `(.+?)` operation")
_ITEM = re.compile(r"with key of type `(.+?)` on object")
_NAME = re.compile(r"Name `(\w+)` used when not defined")
_FOUND = re.compile(r"Expected `(.+)`, found `(.+)`", re.DOTALL)
_ELEMENTS = re.compile(r"list\[(\w+)\]")
_SCALARS = ("str", "int", "float", "bool")
#: The type checker's complaints that are told as likely; others are no help to a model.
_LIKELY = {"invalid-argument-type", "missing-argument", "unknown-argument", "no-matching-overload"}
_LIKELY |= {"too-many-positional-arguments", "missing-union-attribute", "not-iterable", "not-callable", "invalid-await"}
_LIKELY |= {"missing-attribute", "invalid-typed-dict-key", "unsupported-operator", "not-subscriptable"}


def judge(reading: Reading, stubs: Stubs) -> list[Finding]:
    """All findings, in the order of lines; names that are not defined are to be asked of the kernel yet."""
    if reading.syntax is not None:
        line, message, source = reading.syntax
        return [Finding(line, "certain", "SyntaxError", message, source)]
    found = [*_imports(reading, stubs), *_calls(reading, stubs), *_types(reading, stubs), *_advice(reading, stubs)]
    certain = {finding.line for finding in found if finding.kind == "certain"}
    # what is likely beside what is certain is the same thing in other words
    found = [each for each in found if each.kind != "likely" or each.line not in certain]
    found.sort(key=lambda finding: finding.line)
    return list(dict.fromkeys(found))


def undefined(reading: Reading) -> dict[str, list[Diagnosis]]:
    """Names that the cell uses at its top before anything binds them, as far as its text says."""
    found: dict[str, list[Diagnosis]] = {}
    for diagnosis in reading.diagnoses:
        match = _NAME.match(diagnosis.message) if diagnosis.code == "unresolved-reference" else None
        if match and diagnosis.place.line > 0:
            found.setdefault(match[1], []).append(diagnosis)
    for where in found.values():
        # the first that is sure to come to it
        where.sort(key=lambda diagnosis: (diagnosis.place.guarded or diagnosis.place.deferred, diagnosis.place.line))
    return found


def _imports(reading: Reading, stubs: Stubs) -> Iterator[Finding]:
    for wanted in reading.imports:
        name, message = _import_problem(wanted, stubs)
        if message:
            yield Finding(wanted.place.line, _kind(not wanted.place.guarded), name, message, wanted.source)


def _import_problem(wanted: Import, stubs: Stubs) -> tuple[str, str]:
    if wanted.server in OWN:
        return "", ""
    server = stubs.index.by_name.get(wanted.server)
    if server is None:
        servers = list(stubs.index.by_name)
        return "ModuleNotFoundError", (
            f"There is no servers.{wanted.server}.{words.meant(wanted.server, servers)} "
            f"{words.listed(servers, 'Servers')}"
        )
    if not wanted.name or wanted.name in server.by_name or wanted.name in server.type_names or wanted.name[:2] == "__":
        return "", ""
    tools = list(server.by_name)
    message = f"servers.{server.name} has no tool {wanted.name!r}.{words.meant(wanted.name, tools)}"
    if "Did you" not in message:
        message += f" {words.listed(tools, 'Tools')}" if len(tools) <= 20 else ' servers.search("...") finds tools.'
    return "ImportError", message


def _calls(reading: Reading, stubs: Stubs) -> Iterator[Finding]:
    for call in reading.calls:
        tool = stubs.index.tool(call.tool)
        message = "" if tool is None else _misuse(call, tool) or _invalid(call, stubs)
        if message:
            yield Finding(call.place.line, _kind(not call.place.guarded), "ToolInputError", message, call.source)


def _misuse(call: Call, tool: IndexTool) -> str:
    """In the words of the stub in the kernel."""
    names = dict.fromkeys(call.other) | call.literal
    if call.unpacked:
        known = {parameter.name for parameter in tool.parameters}
        if call.positional or known >= names.keys():
            return ""
        # what is unpacked may hold all that is missing
        names |= dict.fromkeys(parameter.name for parameter in tool.parameters)
    wrong = misuse(tool, [_Written(text) for text in call.positional], names)
    return wrong.message if wrong else ""


class _Written(str):
    """An argument that is shown as it is written."""

    __slots__ = ()
    __repr__ = str.__str__


def _invalid(call: Call, stubs: Stubs) -> str:
    """Values that stand in the cell, in the words of the broker."""
    if call.tool not in stubs.registry:
        return ""
    tool = stubs.registry.get(call.tool)
    try:
        if call.other or call.unpacked:
            tool.validate(call.literal)
        else:
            stubs.registry.resolve(call.tool, call.literal)
    except ToolInputError as error:
        invalid = [name for name in error.data.get("invalid", ()) if name in call.literal]
        if not (call.other or call.unpacked):
            return error.message
        if not invalid:
            return ""
        message = error.message
        for name in error.data.get("missing", ()):
            message = message.replace(f"missing argument {name!r}; ", "")
        return message
    except RecursionError:
        return ""
    return ""


def _types(reading: Reading, stubs: Stubs) -> Iterator[Finding]:
    sound = not reading.handles and not any(_contradicts(diagnosis) for diagnosis in reading.diagnoses)
    for diagnosis in reading.diagnoses:
        if diagnosis.place.line < 1 or diagnosis.code not in _LIKELY or diagnosis.severity != "error":
            continue
        certain = _certain(diagnosis, reading, stubs)
        if certain is None:
            yield Finding(diagnosis.place.line, "likely", "TypeError", _shortened(diagnosis.message), diagnosis.source)
        else:
            name, message = certain
            by_record = name == "ToolInputError"
            kind = _kind((sound or by_record) and not diagnosis.place.guarded)
            yield Finding(diagnosis.place.line, kind, name, message, diagnosis.source)


def _contradicts(diagnosis: Diagnosis) -> bool:
    """The checker's types are not those of the session: this cell's assignments say so, or what ran before."""
    if diagnosis.code in _CONTRADICTIONS:
        return diagnosis.code != "non-literal-typed-dict-key" or diagnosis.stored
    if diagnosis.code == "invalid-argument-type":
        own = "Argument to" in diagnosis.message and not diagnosis.tool
        return own or "`__setitem__`" in diagnosis.message
    return False


def _certain(diagnosis: Diagnosis, reading: Reading, stubs: Stubs) -> tuple[str, str] | None:
    """What Python would raise there and the words for it, where the types leave no doubt."""
    match diagnosis.code:
        case "invalid-typed-dict-key":
            return _key(diagnosis, reading, stubs)
        case "missing-attribute":
            return _attribute(diagnosis, reading, stubs)
        case "unsupported-operator":
            return _operator(diagnosis, stubs)
        case "invalid-argument-type" if diagnosis.tool:
            return _argument(diagnosis, stubs)
        case "invalid-argument-type" | "not-subscriptable":
            return _item(diagnosis, stubs)
        case "no-matching-overload":
            return _overload(diagnosis)
        case "not-callable":
            match = _OBJECT.match(diagnosis.message)
            if match and _known(match[1], stubs):
                return (
                    "TypeError",
                    f"{diagnosis.source.partition('(')[0]} is of type {words.plain(match[1])} and cannot be called.",
                )
    return None


def _key(diagnosis: Diagnosis, reading: Reading, stubs: Stubs) -> tuple[str, str] | None:
    match = _KEY.match(diagnosis.message)
    if match is None or diagnosis.stored or not diagnosis.operands:
        return None
    key, type_ = match.groups()
    keys = stubs.keys_of(type_, reading.servers)
    given = key in reading.keys or "*" in reading.keys
    if not keys or given or diagnosis.operands[0][1] != type_:
        return None
    return "KeyError", words.missing_key(type_, key, keys)


def _attribute(diagnosis: Diagnosis, reading: Reading, stubs: Stubs) -> tuple[str, str] | None:
    match = _ATTRIBUTE.match(diagnosis.message)
    if match is None:
        return None
    type_, attribute = match.groups()
    if stubs.is_dict(type_):
        keys = stubs.keys_of(type_, reading.servers)
        return ("AttributeError", words.attribute_of_dict(type_, attribute, diagnosis.source, keys)) if keys else None
    if _known(type_, stubs):
        if type_.startswith("list["):
            return "AttributeError", words.attribute_of_list(type_, attribute)
        owner = diagnosis.source.rpartition(".")[0]
        return "AttributeError", f"{owner} is of type {words.plain(type_)}, which has no attribute {attribute!r}."
    return None


def _operator(diagnosis: Diagnosis, stubs: Stubs) -> tuple[str, str] | None:
    symbol = _SYMBOL.match(diagnosis.message)
    if symbol is None or len(diagnosis.operands) != 2:
        return None
    if not all(_known(type_, stubs) for _, type_ in diagnosis.operands):
        return None
    return "TypeError", words.operation(symbol[1], diagnosis.operands)


def _argument(diagnosis: Diagnosis, stubs: Stubs) -> tuple[str, str] | None:
    """An argument of a kind that no conversion of the broker's makes fit: a list or an object in place of a scalar."""
    match = _FOUND.search(diagnosis.message)
    tool = stubs.index.tool(diagnosis.tool)
    if match is None or tool is None:
        return None
    expected, found = match.groups()
    wanted = {_json_kind(part, stubs) for part in expected.split(" | ")}
    kind = _json_kind(found, stubs)
    if "" in wanted or kind in ("", *wanted) or {kind, *wanted} <= {"number", "text"}:
        return None
    names = ", ".join(p.name + ("*" if p.required else "") for p in tool.parameters)
    written = diagnosis.source.partition("=")[2]
    return "ToolInputError", (
        f"{tool.name}: {diagnosis.argument} is {written}, of type {found}, which is not {expected}. "
        f"Valid: {names} (* required)."
    )


def _json_kind(type_: str, stubs: Stubs) -> str:
    """Whether a value is a number, text, list, object or null; "" where that is not sure."""
    type_ = words.plain(type_.strip())
    if type_ in ("int", "float"):
        return "number"
    if type_ == "str":
        return "text"
    if re.fullmatch(r"list\[[^|]*\]", type_):
        return "list"
    return "object" if stubs.is_dict(type_) else ""


def _item(diagnosis: Diagnosis, stubs: Stubs) -> tuple[str, str] | None:
    if not diagnosis.operands:
        return None
    source, type_ = diagnosis.operands[0]
    key = _ITEM.search(diagnosis.message)
    if not _known(type_, stubs) or stubs.is_dict(type_):
        return None
    if key is not None and words.plain(key[1]) == "str":
        shown = key[1].removeprefix("Literal[").removesuffix("]")
        if type_.startswith("list["):
            return "TypeError", words.index_of_list(source, type_, shown)
        return "TypeError", f"{source} is of type {words.plain(type_)}, whose index is a number, not {shown}."
    if diagnosis.code == "not-subscriptable":
        return "TypeError", f"{source} is of type {words.plain(type_)}: there is nothing in it to be taken with [ ]."
    return None


def _overload(diagnosis: Diagnosis) -> tuple[str, str] | None:
    """Text added up as if it were numbers, and numbers joined as if they were text."""
    if not diagnosis.operands:
        return None
    source, type_ = diagnosis.operands[0]
    type_ = words.plain(type_)
    if "function `sum`" in diagnosis.message or "function `round`" in diagnosis.message:
        if type_ == "str":
            return "TypeError", words.text_for_number(source)
    elif "`str.join`" in diagnosis.message and type_ in ("int", "float"):
        return "TypeError", f"join takes text, and {source} is of type {type_}: write str({source})."
    return None


def _known(type_: str, stubs: Stubs) -> bool:
    """A type that leaves no doubt what a value is: a scalar, a result, or a list of those."""
    if elements := _ELEMENTS.fullmatch(type_):
        return elements[1] in _SCALARS or stubs.is_dict(elements[1])
    return words.plain(type_) in _SCALARS or stubs.is_dict(type_)


def _advice(reading: Reading, stubs: Stubs) -> Iterator[Finding]:
    for advice in reading.advice:
        yield Finding(advice.place.line, "advice", advice.rule, advice.message, advice.source)
    for call in reading.calls:
        tool = stubs.index.tool(call.tool)
        if call.looped and tool is not None and tool.effect != "read":
            message = f"{tool.name} [{tool.effect}] changes something at each pass: print first what it goes through."
            yield Finding(call.place.line, "advice", "write-in-loop", message, call.source)


def _kind(certain: bool) -> Kind:
    return "certain" if certain else "likely"


def _shortened(message: str) -> str:
    line = message.partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:300]}..."
