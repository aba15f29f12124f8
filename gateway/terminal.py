"""What the command line shows: a turn as it happens, a transcript. Strangers' texts are text here, not markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from gateway.transcripts.clean import plain
from gateway.transcripts.notebook import Node, unquoted
from gateway.transcripts.store import Summary
from omniops_client import ChatEvent

_CALL_CHARS = 120
_OUTPUT_CHARS = 4000


class TurnView:
    """Shows the events of a turn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.session = ""
        #: Why the turn ended; "" while it has not.
        self.reason = ""

    def show(self, event: ChatEvent) -> None:
        data = event.data
        match event.kind:
            case "session":
                self.session = str(data.get("session", ""))
            case "step":
                self._console.print(Text(f"step {data.get('step')}", style="bold cyan"))
                self._console.print(code_view(str(data.get("code", ""))))
            case "cell":
                self._console.print(Text(plain(str(data.get("envelope", ""))), style="dim"))
                for call in data.get("calls", ()):
                    self._console.print(call_view(call))
            case "call":
                self._console.print(call_view(data))
            case "fallback":
                self._note(f"cells cannot run, going on with direct tool calls: {data.get('reason')}")
            case "error":
                self._note(str(data.get("message", "")))
            case "answer":
                self._console.print(Panel(Text(plain(str(data.get("text", "")))), title="answer", style="green"))
            case "end":
                self._end(data)

    def _note(self, text: str) -> None:
        self._console.print(Text(plain(text), style="yellow"))

    def _end(self, data: dict[str, Any]) -> None:
        self.reason = str(data.get("reason", ""))
        if self.reason == "paused":
            self._note("a call waits for a person: omniops approvals list")
        elif self.reason != "answered":
            self._note(f"no answer ({self.reason}): {data.get('message', '')}")
        usage, direct = data.get("usage", {}), data.get("direct_usage", {})
        told = [
            f"{data.get('steps', 0)} steps",
            f"{data.get('calls', 0)} tool calls",
            f"{usage.get('input', 0):,} + {usage.get('output', 0):,} tokens",
            f"as direct calls {direct.get('input', 0):,} + {direct.get('output', 0):,}",
            f"{data.get('seconds', 0):.1f} s",
        ]
        self._console.print(Text(" · ".join(told), style="dim"))


def code_view(code: str) -> Syntax:
    return Syntax(plain(code), "python", theme="ansi_dark", background_color="default", word_wrap=True)


def call_view(call: dict[str, Any]) -> Text:
    """One tool call in a line."""
    args = ", ".join(f"{name}={value!r}" for name, value in _mapping(call.get("args")).items())
    args = args if len(args) <= _CALL_CHARS else f"{args[:_CALL_CHARS]}..."
    replayed = ", from the journal" if call.get("replayed") else ""
    ms = call.get("ms")
    took = f", {ms:g} ms" if isinstance(ms, int | float) else ""
    style = "red" if call.get("state") == "failed" else "blue"
    return Text(plain(f"  {call.get('tool')}({args})  {call.get('state')}{replayed}{took}"), style=style)


def show_summaries(console: Console, found: Sequence[Summary]) -> None:
    """A line each; ids by their beginnings, which `show` takes."""
    rows = [("session", "tenant", "state", "created", "messages", "cells", "title")]
    for each in found:
        created = each.created[:16].replace("T", " ")
        counts = (str(each.messages), str(each.cells))
        rows.append((each.session[:12], each.tenant, each.state, created, *counts, plain(each.title)))
    _show_rows(console, rows)


def show_found(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """Transcripts that a search found, a line each; ids by their beginnings."""
    rows: list[tuple[str, ...]] = [
        ("session", "tenant", "state", "created", "cells", "dollars", "tools", "errors", "title")
    ]
    for each in found:
        created = str(each["created"])[:16].replace("T", " ")
        tools, errors = ", ".join(each["tools"]), ", ".join(each["errors"])
        parts = (each["session"][:12], each["tenant"], each["state"], created, each["cells"], f"{each['dollars']:.4f}")
        rows.append((*map(str, parts), plain(tools), plain(errors), plain(each["title"])))
    _show_rows(console, rows)


def _show_rows(console: Console, rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        text = Text(line, style="bold" if number == 0 else "")
        if console.is_terminal:
            text.truncate(console.width, overflow="ellipsis")
        console.print(text, soft_wrap=True)


def show_notebook(console: Console, notebook: Node) -> None:
    """A transcript from its first message to its last."""
    about = notebook.get("metadata", {}).get("omniops", {})
    head = f"session {about.get('session')}  tenant {about.get('tenant')}  {about.get('state')}"
    console.print(Text(f"{head}  {about.get('created')}", style="bold"))
    for cell in notebook["cells"]:
        record = cell.get("metadata", {}).get("omniops", {})
        if cell["cell_type"] == "markdown":
            who = str(record.get("who", ""))
            style = {"customer": "cyan", "agent": "green"}.get(who, "yellow")
            console.print(Panel(Text(plain(unquoted(_joined(cell["source"])))), title=who, style=style))
            continue
        number = record.get("index", "")
        console.print(Text(f"[{number}] {record.get('status', '')} {record.get('ms', '')} ms", style="bold"))
        console.print(code_view(_joined(cell["source"])))
        for call in record.get("calls", ()):
            console.print(call_view(call))
        for output in cell.get("outputs", ()):
            console.print(Text(_output_text(output), style="dim"))
        if record.get("reason"):
            console.print(Text(plain(str(record["reason"])), style="yellow"))


def _output_text(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        text = _joined(output["text"])
    elif output["output_type"] == "error":
        text = "\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}"
    else:
        text = _joined(output["data"].get("text/plain", f"[{', '.join(output['data'])}]"))
    text = plain(text).rstrip("\n")
    return text if len(text) <= _OUTPUT_CHARS else f"{text[:_OUTPUT_CHARS]}\n[{len(text):,} characters in all]"


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
