"""What keeps a gateway from working with a session."""

from __future__ import annotations

from gateway.session_errors import SessionError


class Fenced(SessionError):
    """Another gateway has the session by now, or may have: nothing more is written here."""

    code = "session_moved"
    hint = "Ask again: the request is brought to the gateway that has it."

    def __init__(self, session: str) -> None:
        super().__init__(f"Session {session} is another gateway's by now.")


class OwnedElsewhere(SessionError):
    """Another gateway that lives has the session."""

    code = "session_elsewhere"
    hint = "Ask there, or ask here again when that gateway is gone."

    def __init__(self, session: str, url: str) -> None:
        where = f" at {url}" if url else ""
        super().__init__(f"Session {session} is served by another gateway{where}.")
