"""What a checker sees in a cell: its syntax, its tool calls, what the type checker says, and advice. Nothing is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.checking.advice import advice_of
from gateway.checking.document import Document, compose, read_earlier
from gateway.checking.language_server import LanguageServer
from gateway.checking.messages import Call, Diagnosis, Place, Question, Reading
from gateway.checking.names import names_of
from gateway.checking.places import Places
from gateway.checking.source import NoPython, Source, read
from gateway.checking.tools import Tools, call_of, calls_of, imports_of

#: The type checker's word for a call that does not fit the function.
MISFITS = ("missing-argument", "unknown-argument", "too-many-positional-arguments")
_OVERLOADS = "no-matching-overload"
#: Functions of which it is known what their first argument, or each element of it, must not be.
_PROBED = ("sum", "round", "join")
_DEF = re.compile(r"\s*(?:async )?def (\w+)")
_REVEALED = re.compile(r"Revealed type: `(.*)`", re.DOTALL)
_HAS_TYPE = re.compile(r"Has type `(.*)`", re.DOTALL)
_MOST = 100  # of each kind, of one cell


class Reader:
    """Reads cells against one folder of stubs."""

    def __init__(self, server: LanguageServer, stubs: dict[str, list[str]]) -> None:
        """`stubs`: lines of each stub, by its address as the language server has it."""
        self._server = server
        self._stubs = stubs

    def read(self, question: Question) -> Reading:
        """Raises ServerGone; RecursionError and MemoryError for what is nested without sense."""
        try:
            cell = read(question.code)
        except NoPython as error:
            return Reading(syntax=(error.line, error.message, error.source))
        ran = read_earlier(question.earlier)
        names = names_of(cell)
        places = Places(cell.tree, cell.text)
        tools = Tools([*((earlier.source, earlier.names) for earlier in ran), (cell, names)])
        document = compose(cell, ran)
        raw = self._server.diagnose(document.text)[:_MOST]
        diagnoses = [_diagnosis(item, document, places) for item in raw]
        own = [(item, found) for item, found in zip(raw, diagnoses, strict=True) if found.place.line > 0]
        calls = {call.place: call for call in calls_of(cell.tree, places, tools)}
        calls |= {call.place: call for item, found in own for call in self._misfit(item, found, places, calls)}
        own = [(item, self._with_argument(item, found, places)) for item, found in own]
        probed = self._probe(cell, document, places, [found for _, found in own])
        every = [*(found for found in diagnoses if found.place.line <= 0), *probed]
        keys = {key for earlier in ran for key in earlier.names.keys} | names.keys
        any_key = names.any_key or any(earlier.names.any_key for earlier in ran)
        return Reading(
            calls=tuple(calls.values())[:_MOST],
            imports=tuple(imports_of(cell.tree, places, tools))[:_MOST],
            diagnoses=tuple(every),
            advice=tuple(advice_of(cell.tree, places))[:_MOST],
            keys=("*",) if any_key else tuple(sorted(keys)),
            typed=document.typed,
            bound=tuple(sorted({name for earlier in ran for name in earlier.names.bound})),
            servers=None if tools.servers is None else tuple(sorted(tools.servers)),
            reach=tuple(sorted(tools.reach)),
            handles=any("approvals" in each.used for each in (names, *(earlier.names for earlier in ran))),
            opaque=names.opaque or any(not _is_tool_module(module) for module in names.stars),
        )

    def _misfit(self, item: dict[str, Any], found: Diagnosis, places: Places, known: dict[Any, Call]) -> Iterator[Call]:
        """The call of a tool under another name, `send = refund_order` and the like, that does not fit it."""
        if found.code not in MISFITS:
            return
        tool = self._tool_of(item)
        node = places.spanning(found.place.line, found.place.column, ast.Call)
        # other functions pass arguments on: of those it is not known how
        if tool and isinstance(node, ast.Call) and f"function `{tool.partition('.')[2]}`" in found.message:
            call = call_of(tool, node, node.args, places)
            if call.place not in known:
                yield call

    def _with_argument(self, item: dict[str, Any], found: Diagnosis, places: Places) -> Diagnosis:
        if found.code != "invalid-argument-type" or not (tool := self._tool_of(item)):
            return found
        node = places.spanning(found.place.line, found.place.column, ast.Call)
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg and (keyword.lineno, keyword.col_offset) == (found.place.line, found.place.column):
                return msgspec.structs.replace(found, tool=tool, argument=keyword.arg, source=places.source(keyword))
        return found

    def _tool_of(self, item: dict[str, Any]) -> str:
        for related in item.get("relatedInformation") or ():
            location = related["location"]
            lines = self._stubs.get(location["uri"])
            line = location["range"]["start"]["line"]
            if lines is not None and line < len(lines) and (defined := _DEF.match(lines[line])):
                server = location["uri"].rpartition("/")[2].removesuffix(".pyi")
                return f"{server}.{defined.group(1)}"
        return ""

    def _probe(self, cell: Source, document: Document, places: Places, found: Sequence[Diagnosis]) -> list[Diagnosis]:
        """The same, with the types of what is subscripted or added up, asked for in a second round."""
        wanted: dict[int, ast.expr] = {}
        for number, diagnosis in enumerate(found):
            node = _probed(diagnosis, places)
            if node is not None:
                wanted[number] = node
        if not wanted:
            return list(found)
        text = _with_probes(cell.text, list(wanted.values()))
        before = document.text.split("\n")[: document.offset]
        items = self._server.diagnose("\n".join([*before, text]))
        types = [match[1] for item in items if (match := _REVEALED.match(item.get("message", "")))]
        nodes = sorted(set(wanted.values()), key=lambda node: (node.lineno, node.col_offset))
        if len(types) != len(nodes):
            return list(found)
        of = dict(zip(nodes, types, strict=True))
        return [
            _with_operand(diagnosis, places.source(wanted[number]), of[wanted[number]])
            if number in wanted
            else diagnosis
            for number, diagnosis in enumerate(found)
        ]


def _is_tool_module(module: str) -> bool:
    return module.partition(".")[0] == "servers"


def _diagnosis(item: dict[str, Any], document: Document, places: Places) -> Diagnosis:
    """As the language server has it, with lines of the cell; those of earlier cells have lines below 1."""
    start = item["range"]["start"]
    line, column = start["line"] + 1 - document.offset, start["character"]
    node = _expression(item["range"], document, places)
    holder = places.spanning(line, column, ast.Subscript) if line > 0 else None
    operands = [
        (places.source(operand) if operand is not None else "", match[1])
        for related in item.get("relatedInformation") or ()
        if (match := _HAS_TYPE.match(related["message"]))
        for operand in [_expression(related["location"]["range"], document, places)]
    ]
    return Diagnosis(
        code=str(item.get("code", "")),
        message=str(item.get("message", "")).partition("\n\n")[0][:1000],
        place=places.position(line, column) if line > 0 else Place(line),
        source=places.source(node) if node is not None else places.line(line) if line > 0 else "",
        severity="error" if item.get("severity") == 1 else "warning",
        operands=tuple(operands),
        stored=isinstance(holder, ast.Subscript) and not isinstance(holder.ctx, ast.Load),
    )


def _expression(range_: dict[str, Any], document: Document, places: Places) -> ast.expr | None:
    start, end = range_["start"], range_["end"]
    line, end_line = start["line"] + 1 - document.offset, end["line"] + 1 - document.offset
    return places.at(line, start["character"], end_line, end["character"]) if line > 0 else None


def _probed(found: Diagnosis, places: Places) -> ast.expr | None:
    """The expression whose type decides."""
    line, column = found.place.line, found.place.column
    if _of_a_subscript(found):
        node = places.spanning(line, column, ast.Subscript)
        return node.value if isinstance(node, ast.Subscript) else None
    if found.code == _OVERLOADS:
        call = places.spanning(line, column, ast.Call)
        if isinstance(call, ast.Call) and call.args and _function(call) in _PROBED:
            argument = call.args[0]
            if isinstance(argument, ast.GeneratorExp | ast.ListComp):
                return argument.elt
            return argument
    return None


def _of_a_subscript(found: Diagnosis) -> bool:
    if found.code == "invalid-argument-type":
        return "`__getitem__`" in found.message
    return found.code in ("not-subscriptable", "invalid-typed-dict-key") and not found.stored


def _function(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _with_probes(text: str, nodes: Sequence[ast.expr]) -> str:
    lines = text.encode().split(b"\n")
    edits = [(node.lineno, node.col_offset, 1, b"reveal_type(") for node in set(nodes)]
    edits += [(node.end_lineno or node.lineno, node.end_col_offset or 0, 0, b")") for node in set(nodes)]
    for line, column, _, added in sorted(edits, reverse=True):
        lines[line - 1] = lines[line - 1][:column] + added + lines[line - 1][column:]
    return b"\n".join(lines).decode()


def _with_operand(found: Diagnosis, source: str, type_: str) -> Diagnosis:
    return msgspec.structs.replace(found, operands=((source, type_),))
