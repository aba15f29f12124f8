"""Apart from the client of the model, whose package takes a second to load."""

from __future__ import annotations

NOT_CONFIGURED = "No model is configured: set OPENAI_API_KEY, or OPENAI_BASE_URL for an endpoint of your own."


class ModelError(Exception):
    """The model gave no reply. The message is for people and holds no secret.

    `retry_after` is in seconds, where the endpoint named one.
    """

    def __init__(self, message: str, *, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
