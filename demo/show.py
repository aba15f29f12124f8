"""What people see of the demo: the steps as they happen, the checks, the table. Works with and without a terminal."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table

from demo.gateway import Event
from demo.results import Arm, Results, TaskResult, totals
from demo.tau import Task

#: Columns where the output is no terminal.
_PLAIN_WIDTH = 120
_REQUEST_CHARS = 200
_TABLE_CHARS = 40
_RESULT_LINES = 12
_RESULT_CHARS = 110


class Screen:
    def __init__(self, console: Console | None = None) -> None:
        terminal = sys.stdout.isatty()
        self._console = console or Console(highlight=False, width=None if terminal else _PLAIN_WIDTH)

    def say(self, text: str) -> None:
        self._console.print(escape(text), soft_wrap=True)

    def heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Rule(escape(text), align="left"))

    def task(self, number: int, count: int, task: Task) -> None:
        self.heading(f"{number}/{count}  task {task.id}")
        self._console.print(f"[bold]customer[/]  {escape(_short(f'{task.known_info} {task.reason}', _REQUEST_CHARS))}")

    def event(self, event: Event) -> None:
        """One step of the agent, or what came of it."""
        data = event.data
        match event.kind:
            case "step":
                self._console.print(f"[cyan]step {data['step']}[/]")
                self._code(data["code"].rstrip())
            case "cell":
                self._cell(data)
            case "fallback" | "error":
                self._console.print(f"[red]{event.kind}[/]    {escape(str(data.get('reason') or data.get('message')))}")
            case "answer":
                self._console.print(f"[bold]answer[/]    {escape(data['text'])}")

    def _code(self, code: str) -> None:
        if self._console.is_terminal:
            colours = Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True)
            self._console.print(Padding(colours, (0, 0, 0, 4)))
        else:
            self._console.print(escape(textwrap.indent(code, "    ")), soft_wrap=True)

    def _cell(self, data: dict[str, Any]) -> None:
        lines = str(data["envelope"]).splitlines()
        shown = [_short(line, _RESULT_CHARS) for line in lines[:_RESULT_LINES]]
        if len(lines) > _RESULT_LINES:
            shown.append(f"... {len(lines) - _RESULT_LINES} more lines")
        style = "green" if data["status"] == "ok" else "yellow"
        for line in shown:
            self._console.print(f"[{style}]  |[/] {escape(line)}")

    def checked(self, arm: Arm, *, mode: str = "cells") -> None:
        """Whether the shop is as the reference says, after a task."""
        took = f"{arm.steps} steps, {arm.calls} tool calls, {arm.tokens:,} tokens, {arm.seconds:.2f} s"
        if arm.good:
            self._console.print(f"[bold green]shop ok[/]   same state as the reference; {mode}: {took}")
            return
        why = arm.problem or ("the turn did not end with an answer" if arm.reason != "answered" else "")
        self._console.print(f"[bold red]shop DIFFERS[/] after {mode}: {took}; {arm.reason} {escape(why)}")
        for line in arm.differences[:_RESULT_LINES]:
            self._console.print(f"    {escape(line)}")

    def direct(self, task: str, arm: Arm) -> None:
        """One task of the other way, in one line when all is well."""
        if arm.good:
            took = f"{arm.calls} tool calls one by one, {arm.tokens:,} tokens, {arm.seconds:.2f} s"
            self._console.print(f"task {task:>3}  [green]shop ok[/]   {took}")
        else:
            self._console.print(f"task {task:>3}")
            self.checked(arm, mode="direct calls")

    def table(self, results: Results) -> None:
        self.heading(f"{len(results.tasks)} tasks, model {results.model}")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("task", "request"):
            table.add_column(title, no_wrap=True)
        for title in ("steps", "tool calls", "tokens, cells", "tokens, direct", "ratio", "wall s"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("shop")
        for each in results.tasks:
            table.add_row(*_row(each))
        self._console.print(table)
        self._sums(results)

    def _sums(self, results: Results) -> None:
        cells = [each.cells for each in results.tasks]
        direct = [each.direct for each in results.tasks if each.direct is not None]
        for name, arms in (("cells", cells), ("direct", direct)):
            if not arms:
                continue
            sums = totals(arms)
            split = ", ".join(f"{part} {sums[part]:,.0f}" for part in ("definitions", "results", "turns", "output"))
            self.say(
                f"{name:>7}: {sums['tokens']:>10,.0f} tokens ({split}); "
                f"${sums['dollars_uncached']:.4f}, with prompt caching ${sums['dollars']:.4f}"
            )
        reasons = dict.fromkeys(results.excluded.values())
        for reason in reasons:
            tasks = ", ".join(task for task, why in results.excluded.items() if why == reason)
            self.say(f"left out: tasks {tasks}: {reason}")


def _row(each: TaskResult) -> tuple[str, ...]:
    direct, ratio = each.direct, each.ratio
    arms = [each.cells] if direct is None else [each.cells, direct]
    return (
        each.task,
        escape(_short(each.request, _TABLE_CHARS)),
        str(each.cells.steps),
        str(each.cells.calls),
        f"{each.cells.tokens:,}",
        "-" if direct is None else f"{direct.tokens:,}",
        "-" if ratio is None else f"{ratio:.1f}x",
        f"{each.cells.seconds:.2f}",
        "[green]ok[/]" if all(arm.good for arm in arms) else "[red]DIFFERS[/]",
    )


def _short(text: str, length: int) -> str:
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= length else f"{text[: length - 1]}…"
