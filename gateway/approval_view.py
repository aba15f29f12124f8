"""Approvals on a terminal: the effect, not the code. Whatever strangers wrote is text here, bounded and on one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.approvals.view import shown

_WIDEST = 60
_STYLES = {"pending": "yellow", "approved": "green", "applied": "green", "denied": "red", "failed": "red"}


def show_list(console: Console, approvals: Sequence[Mapping[str, Any]]) -> None:
    """A line each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("id", "state", "tenant", "asked by", "asked", "what"):
        table.add_column(title, no_wrap=title != "what", ratio=1 if title == "what" else None)
    for each in approvals:
        state = str(each["state"])
        table.add_row(
            _text(each["id"]),
            Text(state, style=_STYLES.get(state, "")),
            _text(each["tenant"]),
            _text(each["principal"]),
            _text(str(each["created"])[:16].replace("T", " ")),
            _text(each["summary"], 200),
        )
    console.print(table)


def show_one(console: Console, approval: Mapping[str, Any]) -> None:
    """All that a person needs to decide."""
    state, calls = str(approval["state"]), approval["calls"]
    head = f"{approval['id']}  {state}  {approval['tenant']}  session {approval['session']} ({approval['role']})"
    console.print(_text(head, 300, "bold"))
    if approval["batch"]:
        console.print(_text(f"{approval['title']}: {len(calls)} calls", 400))
    if len(calls) > 1:
        _table(console, calls)
    for call in calls if len(calls) <= 3 else ():
        _call(console, call)
    until = str(approval["expires"])[:16].replace("T", " ")
    where = "its kernel waits" if approval["held"] else "its cell runs again after the decision"
    if state == "pending":
        console.print(_text(f"asked by {approval['principal']}; open until {until} UTC; {where}", 300, "dim"))
    else:
        said = f": {approval['note']}" if approval["note"] else ""
        console.print(_text(f"{state} by {approval['decided_by'] or 'nobody'}{said}", 1200, "dim"))


def show_writes(console: Console, writes: Sequence[Mapping[str, Any]]) -> None:
    """A line each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("call", "state", "tenant", "when", "what", "taken back by"):
        table.add_column(title, no_wrap=title != "what", ratio=1 if title == "what" else None)
    for each in writes:
        args = ", ".join(f"{name}={value}" for name, value in each["args"].items())
        undo = "omniops calls revert" if each["can_revert"] else each["reverted_by"] or each["revert"] or "nothing"
        state = str(each["state"])
        table.add_row(
            str(each["call"]),
            Text(state, style=_STYLES.get(state, "")),
            _text(each["tenant"]),
            _text(str(each["started"])[:16].replace("T", " ")),
            _text(f"{each['tool']}({args})", 200),
            _text(undo),
        )
    console.print(table)


def _table(console: Console, calls: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("#", "tool", "what is changed", "amount", "from", "to", "taken back by", "state"):
        table.add_column(title, justify="right" if title == "amount" else "left")
    for call in calls:
        view = call["view"]
        table.add_row(
            str(call["position"]),
            _text(view["tool"]),
            _text(view["target"] or _fields(view["args"])),
            _text(_money(view)),
            _text(_fields(view["before"])),
            _text(_fields(view["after"])),
            _text(view["revert"] or "nothing"),
            _text(call["state"]),
        )
    console.print(table)


def _call(console: Console, call: Mapping[str, Any]) -> None:
    view = call["view"]
    lines = [
        ("tool", f"{view['tool']} [{view['effect']}] {view['does']}"),
        ("target", view["target"]),
        ("amount", _money(view)),
    ]
    names = [*view["before"], *(name for name in view["after"] if name not in view["before"])]
    for name in names:
        lines.append((name, f"{view['before'].get(name, '(nothing)')} -> {view['after'].get(name, '(nothing)')}"))
    lines += [
        ("arguments", _fields(view["args"], 400)),
        ("taken back by", view["revert"] or "nothing: this cannot be undone"),
        ("asked because", call["reason"]),
        ("note", view["note"]),
        ("call", f"{call['call']} {call['state']}"),
    ]
    for label, value in lines:
        if value:
            console.print(Text.assemble((f"  {shown(label, 20):<15}", "dim"), shown(str(value), 500)), soft_wrap=True)


def _money(view: Mapping[str, Any]) -> str:
    return f"{view['amount']} {view['currency']}".strip()


def _fields(fields: Mapping[str, Any], limit: int = _WIDEST) -> str:
    return shown(", ".join(f"{name}={value}" for name, value in fields.items()), limit)


def _text(value: object, limit: int = _WIDEST, style: str = "") -> Text:
    return Text(shown(str(value), limit), style=style)
