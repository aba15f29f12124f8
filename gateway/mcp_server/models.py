"""What the tools of the MCP server take and give: their JSON schemas are made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

OfTenant = Annotated[
    str | None, Field(max_length=64, description="Whose: only wanted where the key reaches several tenants.")
]


#: As sessions are called.
_SESSION = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
#: `server.tool`, in whatever letters; no path.
_TOOL = r"^[^/?#%\s]{1,300}$"


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RunCell(_Arguments):
    """Run Python in a sandboxed kernel. Variables, imports and functions stay from cell to cell of a session. The
    shop's tools are modules: `from servers.woocommerce import lookup_order`; find them with search_tools, or in the
    cell with `import servers; servers.search("refund an order")`. There is no network. Only what is printed, the last
    value and errors come back, cut to a budget: let the cell do the work and print the few fields that you need. A call
    that waits for a person's approval ends the cell as `paused`: it goes on by itself after the decision."""

    code: str = Field(description="Python source: one cell.")
    session: str | None = Field(
        None,
        pattern=_SESSION,
        description="The session to run it in: as the result of an earlier cell names it. None: the one of this "
        "connection, or a new one.",
    )
    role: Literal["agent", "analyst", "operator"] | None = Field(
        None,
        description="For a new session: `analyst` (the default) reads; `agent` must verify a customer first; "
        "`operator` runs the shop, where the key may.",
    )
    tenant: OfTenant = None
    deadline_s: float | None = Field(None, gt=0, description="Seconds that it may take; at most the gateway's limit.")


class SearchTools(_Arguments):
    """Find the shop's tools by what they do, best first. Cells call them; they are no tools of this server."""

    query: str = Field(max_length=1000, description="What it should do, in any words. Empty: a list by name.")
    server: str | None = Field(None, min_length=1, max_length=200, description="Of this server alone.")
    limit: int = Field(10, ge=1, le=100)
    tenant: OfTenant = None


class DescribeTool(_Arguments):
    """All about one of the shop's tools: its signature, types, description, effect, and who may call it."""

    name: str = Field(pattern=_TOOL, description="`server.tool`, as search_tools names it.")
    tenant: OfTenant = None


class ListSessions(_Arguments):
    """Sessions that the key reaches, the newest first."""

    limit: int = Field(20, ge=1, le=100)
    tenant: OfTenant = None


class EndSession(_Arguments):
    """End a session and what runs in it; its variables are gone. Its transcript stays."""

    session: str | None = Field(None, pattern=_SESSION, description="None: the one of this connection.")


class Call(BaseModel):
    """A tool call that the cell made."""

    tool: str
    effect: str
    state: str


class CellRan(BaseModel):
    """What became of a cell."""

    session: str = Field(description="To run the next cell in, where the connection does not keep it.")
    cell: str
    index: int
    status: Literal["ok", "error", "interrupted", "dead", "paused"]
    reason: str = Field(description="Why it did not end by itself.")
    state_lost: bool = Field(description="The variables are gone.")
    restored: bool = Field(description="The session had lost its kernel: its earlier cells were run again first.")
    ms: float
    envelope: str = Field(description="What the cell showed, cut to a budget.")
    calls: list[Call]


class FoundTool(BaseModel):
    name: str
    call: str
    effect: str
    summary: str


class FoundTools(BaseModel):
    tools: list[FoundTool]
    total: int = Field(description="So many were looked at.")


class ListedSession(BaseModel):
    id: str
    tenant: str
    role: str
    title: str
    state: str
    cells: int
    created: str


class ListedSessions(BaseModel):
    sessions: list[ListedSession]


class SessionOver(BaseModel):
    session: str
    ended: bool


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """Its JSON schema, without the titles that pydantic adds and nobody reads."""
    made = model.model_json_schema()
    made.pop("description", None)
    return _untitled(made)


def _untitled(node: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    return {key: _below(value) for key, value in kept.items()}


def _below(value: Any) -> Any:
    if isinstance(value, dict):
        return _untitled(value)
    return [_below(each) for each in value] if isinstance(value, list) else value
