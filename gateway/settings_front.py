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
