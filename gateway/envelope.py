"""What a cell gives back to the model: one text within one budget of tokens, counted with a real tokenizer.

    status: error   cell: 7   412 ms   3 reads, 1 write
    out:    head and tail  [cut from 41,233 tokens; try orders[:5]]
    value:  {'id': 4711, 'status': 'processing', 'total': '59.90'}
    vars:   + orders list[dict](412) {id, status, total}
    done before the error: woocommerce.add_note(order_id=4711) applied
    error:  ToolInputError: refund_order: unknown argument 'order'. Did you mean order_id?
            line 2: refund_order(order=4711)

Pure functions. Everything from the kernel is a stranger's text here: it is cut, never parsed as code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.checking.types import Check, Finding
from gateway.tokens import count_text
from gateway.transcripts.clean import plain
from gateway.types import CallRecord
from kernel_pool.types import CellError, CellResult

#: Name under which the kernel is asked for its variables (`kernel_pool.sandbox.namespace.EXPRESSION`).
VARIABLES = "omniops_variables"

#: Tokens of a text longer than this are estimated from its beginning.
_COUNTED_CHARS = 500_000
_ARGUMENT_CHARS = 60
_ARGUMENTS_CHARS = 200
_TRACE_LINES = 8
_LABEL = 8
_ADVICE = 3
#: What a label, its indentation and line end cost at most.
_LABEL_TOKENS = 6

_OWN_LINE = re.compile(r"^line (\d+)", re.MULTILINE)
_FRAME = re.compile(r"^\s*Cell In\[(\d+)\], line (\d+)(?:, in (.*))?$")
_ARROW = re.compile(r"^-+> \d+ ?(.*)$")
_SHOWN_NAME = re.compile(r"^(?:print\()?([A-Za-z_]\w*)\)?;?$")


@dataclass(frozen=True)
class Envelope:
    text: str
    tokens: int


class Variables(msgspec.Struct):
    """Changes of a kernel's variables, as it tells them: names with what they hold."""

    new: dict[str, str] = {}
    changed: dict[str, str] = {}
    deleted: list[str] = []
    more: int = 0


@dataclass(frozen=True)
class _Part:
    label: str
    text: str
    #: What to do instead, when the text had to be cut.
    advice: str = "print less"


def make_envelope(
    index: int,
    code: str,
    result: CellResult,
    calls: Sequence[CallRecord],
    *,
    budget: int,
    redact: Callable[[str], str] = str,
    check: Check | None = None,
    advice: Sequence[Finding] = (),
) -> Envelope:
    """The envelope of cell number `index`, of at most `budget` tokens (at least 100).

    `check`: what was known of the cell before it ran; `advice`: what of it is to be told.

    Takes time with the size of the outputs, up to some 0.1 s: call it in a thread when they are large.
    """
    variables = variables_of(result)
    head = _head(index, result, calls, check)
    said = _parts(code, result, calls, variables, redact) if check is None or not check.stopped else ()
    parts = [part for part in [*said, *_checked(result, check, advice, redact)] if part.text]
    room = budget - count_text(head)
    for _ in range(6):
        text = "\n".join([head, *_fitted(parts, room)])
        tokens = count_text(text)
        if tokens <= budget:
            return Envelope(text, tokens)
        room -= tokens - budget + 4
    text = _first_tokens(text, budget - 4)
    return Envelope(text, count_text(text))


def _parts(
    code: str, result: CellResult, calls: Sequence[CallRecord], variables: Variables, redact: Callable[[str], str]
) -> Iterator[_Part]:
    def clean(text: str) -> str:
        return redact(plain(text))

    more = _advice(code, variables)
    yield _Part("out", clean(_printed(result.outputs)).strip("\n"), more)
    yield _Part("value", clean(_value(result.outputs)), more)
    yield _Part("vars", clean(_variables_line(variables)), "few names at once")
    if result.status == "paused":
        yield _Part("done so far", clean(_done(calls)), "the rest is done, too")
        yield _Part("waits", clean(_waiting(calls)), "few writes in one batch")
    elif result.status != "ok":
        yield _Part("done before the error", clean(_done(calls)), "the rest is done, too")
        yield _Part("error", clean(_error(result.error, result.execution_count)))
        yield _Part("reason", clean(result.reason))
    if result.state_lost:
        yield _Part(
            "state",
            "lost: the kernel is gone, and all variables with it. It is restored by running the session's earlier "
            "successful cells again in a new kernel; their tool calls are answered from the journal, nothing is "
            "changed twice. What this cell has done stays done.",
        )


def _checked(
    result: CellResult, check: Check | None, advice: Sequence[Finding], redact: Callable[[str], str]
) -> Iterator[_Part]:
    """What the check found: all that stopped the cell; else what may explain its error, and advice."""
    if check is None:
        return
    if check.stopped:
        yield _Part("error", redact(plain("\n".join(_finding(each) for each in check.certain))), "the rest is like it")
    elif result.status == "error":
        at = {int(number) for number in _OWN_LINE.findall("\n".join(cell_lines_of(result)))}
        yield _Part(
            "check",
            redact(plain("\n".join(_finding(f) for f in check.findings if f.line in at and f.name != "SyntaxError"))),
        )
    yield _Part("check", check.note and f"this cell ran unchecked: {check.note.partition(': ')[2] or check.note}")
    yield _Part("advice", redact(plain("\n".join(_finding(each) for each in advice[:_ADVICE]))))


def _finding(finding: Finding) -> str:
    name = "" if finding.kind == "advice" else f"{finding.name}: "
    text = f"line {finding.line}: {name}{finding.message}"
    return f"{text}\n    {finding.source}" if finding.source and finding.kind == "certain" else text


def _head(index: int, result: CellResult, calls: Sequence[CallRecord], check: Check | None) -> str:
    if check is not None and check.stopped:
        return f"status: {result.status}   cell: {index}   not run: stopped by its check, nothing was done"
    ms = (result.ended - result.started).total_seconds() * 1000
    reads = sum(call.effect == "read" for call in calls)
    writes = len(calls) - reads
    failed = sum(call.state in ("failed", "denied") for call in calls)
    counts = [
        f"{number} {name}{'s' if number > 1 else ''}" for number, name in ((reads, "read"), (writes, "write")) if number
    ]
    counts += [f"{failed} failed"] if failed else []
    return "   ".join([f"status: {result.status}", f"cell: {index}", f"{ms:.0f} ms", ", ".join(counts)]).rstrip()


def _printed(outputs: Sequence[Mapping[str, Any]]) -> str:
    pieces: list[str] = []
    for output in outputs:
        if output["output_type"] == "stream":
            pieces.append(str(output["text"]))
        elif output["output_type"] == "display_data":
            pieces.append(f"{shown(output['data'])}\n")
    return "".join(pieces)


def _value(outputs: Sequence[Mapping[str, Any]]) -> str:
    values = [shown(output["data"]) for output in outputs if output["output_type"] == "execute_result"]
    return "\n".join(values)


def shown(data: Mapping[str, Any]) -> str:
    """A display as text; of one that has none its kinds."""
    text = data.get("text/plain")
    if isinstance(text, str):
        return text
    return f"[{', '.join(list(data)[:5]) or 'empty display'}]"


def variables_of(result: CellResult) -> Variables:
    """What a cell did to the kernel's variables; nothing, where the kernel does not say it well."""
    try:
        return msgspec.json.decode(result.user_expressions.get(VARIABLES, ""), type=Variables)
    except msgspec.MsgspecError:
        return Variables()


def _variables_line(variables: Variables) -> str:
    told = [_one_line(f"+ {name} {text}") for name, text in variables.new.items()]
    told += [_one_line(f"~ {name} {text}") for name, text in variables.changed.items()]
    told += [_one_line(f"- {name}") for name in variables.deleted]
    told += [f"and {variables.more} more"] if variables.more > 0 else []
    return "  ".join(told)[:100_000]


def _one_line(text: str, limit: int = 200) -> str:
    return " ".join(text[:limit].split())


def _done(calls: Sequence[CallRecord]) -> str:
    """Writes that were sent out; those that failed have changed nothing."""
    words = {"applied": "applied", "executing": "outcome not known yet", "unknown": "outcome unknown"}
    told = [
        f"{call.tool}({_arguments(call.args)}) {'applied earlier' if call.replayed else words[call.state]}"
        for call in calls
        if call.effect != "read" and call.state in words
    ]
    return "\n".join(told)


def _waiting(calls: Sequence[CallRecord]) -> str:
    """Calls that a person has to decide about."""
    told = [f"{call.tool}({_arguments(call.args)})" for call in calls if call.state == "pending"]
    return "\n".join(
        [
            *told,
            "A person has to approve this. The cell stopped here and runs again by itself after the decision; do not "
            "make the call again.",
        ]
    )


def _arguments(args: Mapping[str, Any]) -> str:
    told = ", ".join(f"{name}={_short(value)}" for name, value in list(args.items())[:20])
    return told if len(told) <= _ARGUMENTS_CHARS else f"{told[:_ARGUMENTS_CHARS]}..."


def _short(value: object) -> str:
    if isinstance(value, dict | list) and len(value) > 10:
        return f"<{type(value).__name__} of {len(value)}>"
    text = repr(value)
    return text if len(text) <= _ARGUMENT_CHARS else f"{text[:_ARGUMENT_CHARS]}..."


def _error(error: CellError | None, count: int | None) -> str:
    """The error in a line, and below it the cell's own lines on the way to it."""
    if error is None:
        return ""
    lines = cell_lines(error.traceback, count)
    if len(lines) > _TRACE_LINES:
        lines = [*lines[:2], "...", *lines[3 - _TRACE_LINES :]]
    said = f"{error.name}: {error.value}" if error.value else error.name
    return "\n".join([said, *lines])


def cell_lines_of(result: CellResult) -> list[str]:
    """The cell's own lines on the way to its error."""
    return cell_lines(result.error.traceback, result.execution_count) if result.error else []


def cell_lines(traceback: Sequence[str], count: int | None) -> list[str]:
    """Of an IPython traceback the lines of cells, outermost first; `count` is the execution count of this cell."""
    lines = plain("\n".join(traceback)).split("\n")
    told: list[str] = []
    for number, line in enumerate(lines):
        frame = _FRAME.match(line)
        if frame is None:
            continue
        cell, at, function = frame.groups()
        where = f"line {at}" if count is None or int(cell) == count else f"In[{cell}] line {at}"
        where += f", in {function}" if function else ""
        following = lines[number + 1 : number + 8]
        told.append(f"{where}: {_source(following)}")
    return told


def _source(lines: Sequence[str]) -> str:
    """The line that an arrow marks, or the first one: a syntax error has no arrow."""
    marked = [found.group(1) for found in map(_ARROW.match, lines) if found]
    return (marked[0] if marked else (lines[0] if lines else "")).strip()[:300]


def _advice(code: str, variables: Variables) -> str:
    """A smaller thing to show, where the cell's last line shows a variable."""
    last = next((line.strip() for line in reversed(code.splitlines()) if line.strip()), "")
    shown = _SHOWN_NAME.match(last)
    if shown is None:
        return "print a slice or the few fields that matter"
    name = shown.group(1)
    kind = {**variables.new, **variables.changed}.get(name, "")
    if kind.startswith(("DataFrame", "Series")):
        return f"try {name}.head()"
    return f"try list({name}.items())[:5]" if kind.startswith("dict") else f"try {name}[:5]"


def _fitted(parts: Sequence[_Part], room: int) -> list[str]:
    texts = [_tokens(part.text) for part in parts]
    needs = [tokens + part.text.count("\n") + _LABEL_TOKENS for tokens, part in zip(texts, parts, strict=True)]
    shares = share_out(needs, room)
    return [
        _labelled(part.label, part.text if need <= share else _cut(part, tokens, share - _LABEL_TOKENS))
        for part, tokens, need, share in zip(parts, texts, needs, shares, strict=True)
        if share > _LABEL_TOKENS
    ]


def share_out(needs: Sequence[int], room: int) -> list[int]:
    """Give each what it needs; where that is too much, the largest get equal shares."""
    shares = [0] * len(needs)
    left = max(room, 0)
    for position, at in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        shares[at] = min(needs[at], left // (len(needs) - position))
        left -= shares[at]
    return shares


def _labelled(label: str, text: str) -> str:
    """Continued lines stand below the first one, so that no output can pass for a label."""
    head = f"{label}:".ljust(_LABEL)
    head += "" if head.endswith(" ") else " "
    return head + text.replace("\n", "\n" + " " * _LABEL)


def _cut(part: _Part, tokens: int, share: int) -> str:
    """Head and tail of a text, with what was cut said between them."""
    exact = "" if len(part.text) <= _COUNTED_CHARS else "about "
    note = f"[cut from {exact}{tokens:,} tokens; {part.advice}]"
    room = share - count_text(note) - 4
    if room < 8:
        return note if room >= -4 else "[cut]"
    head = _first_tokens(part.text, room * 2 // 3)
    tail = _last_tokens(part.text[len(head) :], room - room * 2 // 3)
    return f"{head}\n{note}\n{tail}"


def _tokens(text: str) -> int:
    if len(text) <= _COUNTED_CHARS:
        return count_text(text)
    return count_text(text[:_COUNTED_CHARS]) * len(text) // _COUNTED_CHARS


def _first_tokens(text: str, tokens: int) -> str:
    size = _fitting(tokens, len(text), lambda size: text[:size])
    return text[:size]


def _last_tokens(text: str, tokens: int) -> str:
    size = _fitting(tokens, len(text), lambda size: text[len(text) - size :])
    return text[len(text) - size :]


def _fitting(tokens: int, most: int, piece: Callable[[int], str]) -> int:
    """The most characters (to within 1 %) whose tokens, indentation included, are at most `tokens`."""
    low, high = 0, min(most, max(tokens, 0) * 16)
    while high - low > max(1, high // 100):
        middle = (low + high + 1) // 2
        part = piece(middle)
        if count_text(part) + part.count("\n") <= tokens:
            low = middle
        else:
            high = middle - 1
    return low
