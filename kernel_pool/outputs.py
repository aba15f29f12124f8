"""The outputs of one cell, gathered as nbformat 4.5 has them, within bounds, from messages that nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from kernel_pool.channels import Incoming, decode
from kernel_pool.types import Json

#: Called with each output as it comes: nbformat outputs, streams in pieces, displays with `transient` where they have
#: a display id; and {"output_type": "clear_output", "wait"} and {"output_type": "update_display_data", ...}. Must
#: neither block nor raise.
Sink = Callable[[Mapping[str, Json]], None]


@dataclass(frozen=True)
class Earlier:
    """What an earlier gateway put into a cell's overflow: its outputs, and how far the cell had come with them."""

    outputs: Iterable[Mapping[str, Json]]
    position: int


class Overflow(Protocol):
    """Takes all outputs of a cell that says much, in order, as `Sink` has them: more than memory is to hold.

    Nothing of it blocks or raises.
    """

    def begin(self, hold: Callable[[bool], None]) -> None:
        """Outputs come from now on. `hold`: keep the kernel waiting (True), let it go on (False)."""

    def put(self, output: Mapping[str, Json], size: int, position: int) -> bool:
        """One output, of so many bytes; False where no more is taken, `why` then says why.

        `position`: how far the cell has come with it.
        """

    def clear(self) -> None:
        """All that came so far does not count."""

    @property
    def why(self) -> str:
        """One sentence for people: why no more is taken."""


#: What an output is charged beyond its bytes, so that many small ones are bounded as well.
_OVERHEAD = 1024
#: Kept back for what matters most after a flood: the last value and the error.
_RESERVE = 256 * 1024
#: JSON takes this many times its text in memory; largest value and deepest nesting that is kept.
_JSON_FACTOR = 8
_JSON_DEPTH = 100
_MAX_METADATA = 64 * 1024
_MAX_KEYS = 64
_MAX_INT = 2**63
#: A cell that says so much has it all put into its overflow, from its first output on.
_OVERFLOW_AT = 4 * 1024 * 1024


class _Stream(msgspec.Struct):
    name: Literal["stdout", "stderr"]
    text: str


class _Transient(msgspec.Struct):
    display_id: str | None = None


class _Display(msgspec.Struct):
    data: dict[str, msgspec.Raw]
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    transient: _Transient = msgspec.field(default_factory=_Transient)
    execution_count: int | None = None


class _Error(msgspec.Struct):
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = []


class _Clear(msgspec.Struct):
    wait: bool = False


class Outputs:
    """Takes messages, keeps at most `keep` bytes of outputs, counts the rest; with an `overflow` it has all of them."""

    def __init__(
        self,
        keep: int,
        sink: Sink | None,
        overflow: Overflow | None = None,
        hold: Callable[[bool], None] = lambda wait: None,
    ) -> None:
        self._keep = keep
        self._sink = sink
        self._overflow = overflow
        self._hold = hold
        #: The overflow gets what comes.
        self._flowing = False
        #: How many outputs came before the first that is not kept here; None: all are.
        self.cut: int | None = None
        #: How far the cell has come with the message that is taken.
        self.position = 0
        #: The overflow takes no more, and memory does not either.
        self.refused = False
        self._outputs: list[dict[str, Json]] = []
        self._texts: list[str] = []
        self._displays: dict[str, list[dict[str, Json]]] = {}
        self._used = 0
        self._clear_next = False
        #: Bytes that the cell produced, and how many of them were not kept.
        self.received = 0
        self.dropped = 0

    def take(self, incoming: Incoming) -> bool:
        """Add the output in `incoming`; whether it was one."""
        handler = _HANDLERS.get(incoming.msg_type)
        if handler is None:
            return False
        self.received += incoming.size
        if self._overflow is not None and not self._flowing and self.received > min(self._keep, _OVERFLOW_AT):
            self._begin_overflow(self._overflow)
        if not handler(self, incoming):
            self.dropped += incoming.size
        return True

    def restore(self, earlier: Earlier) -> None:
        """The overflow has these already; what fits in is kept here as well."""
        if self._overflow is None:
            return
        self._overflow.begin(self._hold)
        self.received = self.position = earlier.position
        for output in earlier.outputs:
            if not self._again(dict(output)):
                break
        self._flowing = True

    def lose(self, size: int) -> None:
        """So many bytes of output that came next are nowhere any more: that is said in their place."""
        self.received += size
        self.dropped += size
        text = f"\n[{size:,} bytes of output are lost here: they came while no gateway was there to keep them]\n"
        self._text("stderr", text, len(text))

    def close_overflow(self) -> None:
        """What comes from now on and is too much is dropped."""
        self._overflow, self._flowing = None, False

    def skip(self, size: int) -> None:
        """Count an output that never reached us."""
        self.received += size
        self.dropped += size

    def result(self) -> tuple[Mapping[str, Json], ...]:
        """The outputs so far."""
        self._end_stream()
        return tuple(self._outputs)

    def last_error(self) -> Mapping[str, Json] | None:
        return next((o for o in reversed(self._outputs) if o["output_type"] == "error"), None)

    def _stream(self, incoming: Incoming) -> bool:
        full = self.cut is not None or self._used >= self._keep
        if (full and not self._flowing) or (stream := decode(incoming.content, _Stream)) is None:
            return False
        self._before_output()
        return self._text(stream.name, stream.text, incoming.size)

    def _text(self, name: str, text: str, size: int) -> bool:
        kept = self._pour({"output_type": "stream", "name": name, "text": text}, size)
        if self.cut is not None or self._used >= self._keep:
            return self._leave_out(kept)
        last = self._outputs[-1] if self._outputs else None
        if last is None or last.get("name") != name:
            self._append({"output_type": "stream", "name": name, "text": ""}, 0)
        # Only now: what is kept must not depend on the number of messages that a print was sent in.
        free = max(self._keep - self._used, 0)
        if len(text) > free:
            text = text[:free]
            if not self._leave_out(kept):
                self.dropped += size - free
        self._texts.append(text)
        self._used += len(text)
        self._tell({"output_type": "stream", "name": name, "text": text})
        return True

    def _again(self, output: dict[str, Json]) -> bool:
        """Keep what the overflow has already; whether it fitted in."""
        transient, size = output.pop("transient", None), len(msgspec.json.encode(output))
        if output["output_type"] == "stream":
            free = self._keep - self._used - _OVERHEAD
            self._text(output["name"], output["text"][: max(free, 0)], size)
            if len(output["text"]) > free:
                self._used = max(self._used, self._keep)
            if self._used >= self._keep:
                self._end_stream()
                self.cut = len(self._outputs)
        elif self._used + size > self._keep:
            self.cut = len(self._outputs)
        elif output["output_type"] == "update_display_data":
            for shown in self._displays.get(transient["display_id"] if transient else "", ()):
                shown.update(data=output["data"], metadata=output["metadata"])
        else:
            self._append(output, size)
            if transient:
                self._displays.setdefault(transient["display_id"], []).append(output)
            self._tell(output)
        return self.cut is None

    def _display(self, incoming: Incoming) -> bool:
        fits = self.cut is None and self._used + incoming.size <= self._keep
        display = self._decoded(incoming, fits)
        if display is None:
            return False
        bundle, charge = _bundle(display)
        self._before_output()
        output: dict[str, Json] = {"output_type": "display_data", **bundle}
        id = display.transient.display_id
        event = output if id is None else {**output, "transient": {"display_id": id}}
        kept = self._pour(event, incoming.size)
        if not fits:
            return self._leave_out(kept)
        self._append(output, charge)
        if id is not None:
            self._displays.setdefault(id, []).append(output)
        self._tell(event)
        return True

    def _update(self, incoming: Incoming) -> bool:
        fits = self._used + incoming.size <= self._keep
        display = self._decoded(incoming, fits)
        if display is None or display.transient.display_id is None:
            return False
        bundle, charge = _bundle(display)
        transient = {"display_id": display.transient.display_id}
        event = {"output_type": "update_display_data", **bundle, "transient": transient}
        kept = self._pour(event, incoming.size)
        if not fits:
            return kept
        for output in self._displays.get(display.transient.display_id, ()):
            output.update(bundle)
        # What it replaces stays charged: a display that is updated for ever comes to an end.
        self._used += charge // 8
        self._tell(event)
        return True

    def _result(self, incoming: Incoming) -> bool:
        fits = self._used + incoming.size <= self._keep + _RESERVE
        display = self._decoded(incoming, fits)
        if display is None:
            return False
        bundle, charge = _bundle(display)
        count = display.execution_count
        if count is not None and not 0 <= count < _MAX_INT:
            count = None
        output: dict[str, Json] = {"output_type": "execute_result", "execution_count": count, **bundle}
        return self._last(output, incoming.size, charge, fits)

    def _error(self, incoming: Incoming) -> bool:
        fits = self._used + incoming.size <= self._keep + _RESERVE
        error = decode(incoming.content, _Error) if fits or self._flowing else None
        if error is None:
            return False
        output = {"output_type": "error", "ename": error.ename, "evalue": error.evalue, "traceback": error.traceback}
        return self._last(output, incoming.size, incoming.size, fits)

    def _last(self, output: dict[str, Json], size: int, charge: int, fits: bool) -> bool:
        """What matters most after a flood is kept beside what overflowed."""
        self._before_output()
        kept = self._pour(output, size)
        if not fits:
            return self._leave_out(kept)
        self._tell(self._append(output, charge))
        return True

    def _clear(self, incoming: Incoming) -> bool:
        clear = decode(incoming.content, _Clear)
        if clear is None:
            return False
        self._tell({"output_type": "clear_output", "wait": clear.wait})
        self._clear_next = clear.wait
        if not clear.wait:
            self._forget()
        return True

    def _decoded(self, incoming: Incoming, fits: bool) -> _Display | None:
        if not fits and not self._flowing:
            return None
        display = decode(incoming.content, _Display)
        return display if display is not None and len(display.data) <= _MAX_KEYS else None

    def _begin_overflow(self, overflow: Overflow) -> None:
        overflow.begin(self._hold)
        self._flowing = True
        names = {id(output): name for name, shown in self._displays.items() for output in shown}
        for output in self.result():
            name = names.get(id(output))
            # the kept one changes when it is updated
            size = len(output.get("text", ""))
            self._pour(dict(output) if name is None else {**output, "transient": {"display_id": name}}, size)

    def _pour(self, output: Mapping[str, Json], size: int) -> bool:
        """Into the overflow; whether it has it."""
        return self._flowing and self._overflow is not None and self._overflow.put(output, size, self.position)

    def _leave_out(self, kept: bool) -> bool:
        """An output is not, or not whole, kept here; whether the overflow has it."""
        if self.cut is None and self._flowing:
            self._end_stream()
            self.cut = len(self._outputs)
        self.refused = self.refused or (self._flowing and not kept)
        return kept

    def _before_output(self) -> None:
        if self._clear_next:
            self._clear_next = False
            self._forget()

    def _forget(self) -> None:
        self._outputs.clear()
        self._texts.clear()
        self._displays.clear()
        self._used = 0
        self.cut = None
        if self._flowing and self._overflow is not None:
            self._overflow.clear()

    def _append(self, output: dict[str, Json], charge: int) -> dict[str, Json]:
        self._end_stream()
        self._outputs.append(output)
        self._used += charge + _OVERHEAD
        return output

    def _end_stream(self) -> None:
        """Join the pieces of the stream that came last."""
        if self._texts:
            self._outputs[-1]["text"] = "".join((self._outputs[-1]["text"], *self._texts))
            self._texts.clear()

    def _tell(self, event: Mapping[str, Json]) -> None:
        if self._sink is not None:
            self._sink(event)


_HANDLERS: dict[str, Callable[[Outputs, Incoming], bool]] = {
    "stream": Outputs._stream,
    "display_data": Outputs._display,
    "update_display_data": Outputs._update,
    "execute_result": Outputs._result,
    "error": Outputs._error,
    "clear_output": Outputs._clear,
}


def _bundle(display: _Display) -> tuple[dict[str, Json], int]:
    """Data and metadata as nbformat allows them, and what they are charged."""
    data: dict[str, Json] = {}
    charge = 0
    for mime, raw in display.data.items():
        is_json = mime == "application/json" or mime.endswith("+json")
        value = _json(raw) if is_json else _text(raw)
        if value is not None:
            data[mime] = value
            charge += len(bytes(raw)) * (_JSON_FACTOR if is_json else 1)
    metadata = decode(display.metadata, dict[str, Any]) if len(bytes(display.metadata)) <= _MAX_METADATA else None
    if metadata is None or not _tame(metadata, 0):
        metadata = {}
    return {"data": data, "metadata": metadata}, charge + len(bytes(display.metadata))


def _text(raw: msgspec.Raw) -> str | None:
    value = decode(raw, str | list[str])  # type: ignore[arg-type]
    return "".join(value) if isinstance(value, list) else value


def _json(raw: msgspec.Raw) -> Json:
    if len(bytes(raw)) > 1024 * 1024:
        return None
    value = decode(raw, Any)
    return value if _tame(value, 0) else None


def _tame(value: Json, depth: int) -> bool:
    """Whether everyone downstream can write this as JSON again: not too deep, integers of 64 bits."""
    if depth > _JSON_DEPTH:
        return False
    if isinstance(value, dict):
        return all(_tame(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return all(_tame(item, depth + 1) for item in value)
    return not isinstance(value, int) or -_MAX_INT <= value < _MAX_INT
