"""What of a tool it is found by."""

from __future__ import annotations

from dataclasses import dataclass

from servers.rendering import annotation_of
from servers.tool import Tool


@dataclass(frozen=True)
class Entry:
    """Texts by field, from the one that says most to the one that says least."""

    name: str
    server: str
    parameters: str
    #: The description's first line, which says what it does; the rest of it.
    summary: str
    description: str


def entry_of(tool: Tool, server_doc: str = "") -> Entry:
    """`server_doc`: the server's description, of which the first line counts."""
    parameters = " ".join(f"{p.name} {p.description}" for p in tool.parameters)
    summary, _, rest = tool.doc.partition("\n")
    return Entry(
        name=tool.name,
        server=f"{tool.server} {server_doc.partition(chr(10))[0]}",
        parameters=parameters,
        summary=summary,
        description=f"{rest}\n{annotation_of(tool.returns)}",
    )
