"""What a check comes to, for whoever runs cells."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["certain", "likely", "advice"]


class Finding(msgspec.Struct, frozen=True):
    """One thing about a cell, known before it runs."""

    #: Of the cell, from 1; 0 where it is not known.
    line: int
    #: "certain": the line cannot go well, so the cell is stopped; "likely": the type checker says so and may be wrong;
    #: "advice": it will run, and is seldom wise.
    kind: Kind
    #: What Python would raise, such as "ToolInputError"; of advice the rule, such as "write-in-loop".
    name: str
    message: str
    #: The code that it is about.
    source: str = ""


class Check(msgspec.Struct, frozen=True):
    """A cell's check."""

    findings: tuple[Finding, ...] = ()
    #: The cell was not run.
    stopped: bool = False
    #: From the question to the answer; part of it beside other work.
    ms: float = 0.0
    #: Why the cell was not checked, or not all of it; "" where it was.
    note: str = ""

    @property
    def certain(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.kind == "certain")
