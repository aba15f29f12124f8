"""Settings of what faces other people's programs: chat front ends, MCP clients."""

from __future__ import annotations

from pydantic import Field

from .settings_group import Group


class ChatApiSettings(Group):
    live_words: bool = Field(
        True,
        description="Streams carry the model's words as they come, also those before a cell. False: the answer alone, "
        "when the transcript has it.",
    )
    conversation_headers: tuple[str, ...] = Field(
        ("x-conversation-id", "x-openwebui-chat-id"),
        description="Headers in which front ends name a conversation; the first that is there counts.",
    )
    remember_days: float = Field(
        30.0, gt=0, description="How long a conversation that has no name is recognised by what was said."
    )
    history_chars: int = Field(
        20_000,
        ge=0,
        description="Of a conversation that is not on record, the model is told so many characters, as untrusted text.",
    )


class McpServerSettings(Group):
    hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*", "[::1]", "[::1]:*"),
        description="Names under which `/mcp` may be reached, `:*` for any port: others are refused, against DNS "
        "rebinding. Behind a proxy: the name that clients use.",
    )
    origins: tuple[str, ...] = Field(
        ("http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*"),
        description="Web pages that may use `/mcp`, by origin.",
    )
    idle_s: float = Field(
        86_400.0, gt=0, description="A connection to `/mcp` that was silent for so long is forgotten."
    )
    max_sessions: int = Field(10_000, gt=0, description="Connections to `/mcp` at once.")
    progress_chars: int = Field(2000, gt=0, description="Characters of output in one progress notification.")
    image_kb: int = Field(1024, ge=0, description="Plots that a cell's result carries, KiB of base64 together.")
    page: int = Field(50, gt=0, le=500, description="Transcripts in one page of the resources.")
    resource_kb: int = Field(4096, gt=0, description="Largest transcript that is read as a resource, KiB.")
    authorization_servers: tuple[str, ...] = Field(
        (), description="Issuers of OAuth tokens that the gateway takes: named to clients that come without one."
    )
