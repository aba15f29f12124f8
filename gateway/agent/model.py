"""The model: any OpenAI-compatible endpoint, through the `openai` package.

One request is one attempt of `complete`: a stream with a time-out over the whole of it. What failed in transport, with
429 or with 5xx is repeated, after the server's own delay where it names one. Errors are put into words for people here,
and the key is in none of them.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from gateway.agent.model_error import NOT_CONFIGURED, ModelError
from gateway.agent.reply import BadChunk, Reply, read_reply
from gateway.agent.types import FunctionTool, Message
from gateway.settings import ModelSettings, Settings
from servers.retry_after import retry_after

#: Hears the number of the attempt, from 1, and a piece of the reply's text.
OnText = Callable[[int, str], Awaitable[None]]

#: A reply is cut off after this many characters per token that it was allowed: an endpoint that ignores the limit.
_CHARS_PER_TOKEN = 16
#: How much of an endpoint's own error text is passed on, characters.
_DETAIL_CHARS = 300
_OPENAI = "https://api.openai.com/v1"


class ModelClient:
    """Requests to one endpoint. Safe to share between turns; close it at the end."""

    def __init__(
        self, settings: ModelSettings, *, api_key: str | None, base_url: str | None, backoff_s: float = 0.5
    ) -> None:
        """`backoff_s`: the first wait before a repeat, doubled each time, where the endpoint names none.

        Raises ModelError when neither a key nor an endpoint is configured.
        """
        if api_key is None and base_url is None:
            raise ModelError(NOT_CONFIGURED)
        self.settings = settings
        self._url = base_url or _OPENAI
        self._host = urlsplit(self._url).netloc.rpartition("@")[2]
        self._key = api_key
        self._backoff_s = backoff_s
        self._client = openai.AsyncOpenAI(
            # endpoints of one's own often take no key; the SDK insists on one
            api_key=api_key or "none",
            base_url=self._url,
            timeout=settings.timeout_s,
            max_retries=0,
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelClient:
        key, url = settings.openai_api_key, settings.openai_base_url
        return cls(
            settings.model,
            api_key=None if key is None else key.get_secret_value(),
            base_url=None if url is None else str(url),
        )

    async def close(self) -> None:
        await self._client.close()

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[FunctionTool],
        *,
        max_output: int,
        patience_s: float,
        on_text: OnText,
    ) -> Reply:
        """One reply, of at most `max_output` tokens. Raises ModelError.

        No repeat is waited for beyond `patience_s` from now. Cancelling it closes the connection.
        """
        give_up = time.monotonic() + patience_s

        def worth_it(error: BaseException) -> bool:
            if not isinstance(error, ModelError) or not error.retryable:
                return False
            return time.monotonic() + (error.retry_after or 0) < give_up

        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(self.settings.retries + 1),
            retry=retry_if_exception(worth_it),
            wait=self._wait,
            reraise=True,
        ):
            with attempt:
                return await self._attempt(messages, tools, max_output, attempt.retry_state.attempt_number, on_text)
        raise AssertionError("tenacity ends with a result or an exception")

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, ModelError) and error.retry_after is not None:
            return error.retry_after
        return wait_exponential_jitter(multiplier=self._backoff_s, max=8, jitter=self._backoff_s)(state)

    async def _attempt(
        self, messages: Sequence[Message], tools: Sequence[FunctionTool], max_output: int, number: int, on_text: OnText
    ) -> Reply:
        timeout_s = self.settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                stream = await self._client.chat.completions.create(
                    model=self.settings.name,
                    messages=cast(Any, messages),
                    tools=cast(Any, list(tools) or openai.omit),
                    max_completion_tokens=max_output,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                async with stream:
                    reply = await read_reply(
                        stream, max_chars=max_output * _CHARS_PER_TOKEN, on_text=lambda text: on_text(number, text)
                    )
        except (TimeoutError, openai.APITimeoutError):
            said = f"The model at {self._host} did not finish its reply within {timeout_s:g} s."
            raise ModelError(said, retryable=True) from None
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APIConnectionError as error:
            cause = self._safe(str(error.__cause__ or error))
            raise ModelError(f"The connection to the model at {self._host} failed: {cause}.", retryable=True) from None
        except openai.APIError as error:
            raise ModelError(
                f"The model at {self._host} broke off with an error: {self._safe(error.message)}", retryable=True
            ) from None
        except (BadChunk, json.JSONDecodeError):
            said = f"The model at {self._host} sent something that is no chat completion; is OPENAI_BASE_URL right?"
            raise ModelError(said, retryable=True) from None
        if not reply.finish:
            raise ModelError(f"The reply of the model at {self._host} broke off in the middle.", retryable=True)
        return reply

    def _refused(self, error: openai.APIStatusError) -> ModelError:
        status, host = error.status_code, self._host
        detail = self._safe(_detail(error))
        if status in (401, 403):
            return ModelError(f"The model at {host} refused the key ({status}): check OPENAI_API_KEY.")
        if status == 404:
            name = self.settings.name
            return ModelError(
                f"There is no model {name!r} at {host} (404): check model.name and OPENAI_BASE_URL. {detail}"
            )
        if status == 429 and error.code == "insufficient_quota":
            return ModelError(f"The account at {host} has no quota left (429): {detail}")
        if status == 429:
            wait = retry_after(error.response.headers)
            hint = "" if wait is None else f", and asks to wait {wait:g} s"
            return ModelError(
                f"The model at {host} is over its rate limit (429){hint}. {detail}", retryable=True, retry_after=wait
            )
        if status in (408, 409) or status >= 500:
            wait = retry_after(error.response.headers)
            return ModelError(f"The model at {host} failed ({status}): {detail}", retryable=True, retry_after=wait)
        return ModelError(f"The model at {host} refused the request ({status}): {detail}")

    def _safe(self, text: str) -> str:
        """An endpoint's words, fit for people: one line, short, without the key, whole or in part."""
        if self._key:
            text = text.replace(self._key, "***")
        text = re.sub(r"\b(sk|pk|key)-[\w*.-]{4,}", "***", text)
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_DETAIL_CHARS]


def _detail(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.message
