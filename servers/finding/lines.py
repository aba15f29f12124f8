"""A tool on one line, as lists of tools show it."""

from __future__ import annotations

from servers.rendering import annotation_of
from servers.tool import OMITTED, Parameter, Tool

#: Characters of a call's part of a line; what is longer has its parameters left out from the end.
MAX_CALL = 160


def call_line(tool: Tool) -> str:
    """`shop.refund(*, order_id, amount, reason="") -> Refund`: names and defaults; types are in its stub."""
    returns = annotation_of(tool.returns)
    end = f" -> {returns if len(returns) <= MAX_CALL // 2 else 'Any'}"
    shown: list[str] = ["*"] if tool.parameters else []
    room = MAX_CALL - len(tool.qualified_name) - len(end) - len("(*, ...)")
    for parameter in tool.parameters:
        text = _parameter(parameter)
        room -= len(text) + 2
        if room < 0:
            shown.append("...")
            break
        shown.append(text)
    return f"{tool.qualified_name}({', '.join(shown)}){end}"


def _parameter(parameter: Parameter) -> str:
    if parameter.required:
        return parameter.name
    default = "..." if parameter.default is OMITTED else repr(parameter.default).replace("'", '"')
    return f"{parameter.name}={default if len(default) <= 30 else '...'}"
