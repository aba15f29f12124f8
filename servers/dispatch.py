"""One tool that stands for several: made from their records, and resolved to them before a call is journaled."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from .context import ToolContext
from .tool import EFFECTS, EVERYBODY, Parameter, Tool


def dispatcher(*, server: str, name: str, doc: str, operations: Sequence[Tool]) -> Tool:
    """`name(*, operation, arguments)`. Its effect is the strongest of its operations'."""
    targets = {tool.name: tool for tool in operations}
    listed = "\n".join(
        f"- {tool.signature.removesuffix(' -> ' + _returned(tool))}: {tool.summary}" for tool in operations
    )

    async def dispatch(ctx: ToolContext, *, operation: str, arguments: dict[str, Any]) -> Any:
        return await targets[operation].call(ctx, arguments)

    return Tool(
        server=server,
        name=name,
        doc=f"{doc}\n\n{listed}",
        parameters=(
            Parameter("operation", Literal[tuple(targets)]),
            Parameter("arguments", Annotated[dict[str, Any], Meta(description="the operation's own arguments")]),
        ),
        returns=functools.reduce(operator.or_, dict.fromkeys(tool.returns for tool in operations)),
        effect=max((tool.effect for tool in operations), key=EFFECTS.index),
        roles=tuple(role for role in EVERYBODY if any(role in tool.roles for tool in operations)),
        implementation=dispatch,
        operations=targets,
    )


def _returned(tool: Tool) -> str:
    return tool.signature.rpartition(" -> ")[2]
