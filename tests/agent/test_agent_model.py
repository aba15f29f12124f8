"""The model client against a real endpoint that behaves, misbehaves and fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from email.utils import formatdate
from time import time

import pytest
from model_double import (
    KEY,
    Endpoint,
    breaks_off,
    calls,
    chunk,
    fails,
    floods,
    never_answers,
    raw,
    says,
    stream,
    trickles,
    usage,
)
from starlette.requests import Request
from starlette.responses import Response

from gateway.agent.model import ModelClient
from gateway.agent.model_error import ModelError
from gateway.agent.reply import Reply
from gateway.settings import ModelSettings
from gateway.tokens import Usage

Connect = Callable[..., ModelClient]
USER = [{"role": "user", "content": "hello"}]


async def ask(client: ModelClient, heard: list[tuple[int, str]] | None = None, **options: float) -> Reply:
    async def on_text(attempt: int, text: str) -> None:
        if heard is not None:
            heard.append((attempt, text))

    patience, output = options.get("patience_s", 60), int(options.get("max_output", 500))
    return await client.complete(USER, [], max_output=output, patience_s=patience, on_text=on_text)


async def failure(client: ModelClient, **options: float) -> str:
    with pytest.raises(ModelError) as caught:
        await ask(client, **options)
    return str(caught.value)


async def test_text_comes_in_pieces_and_whole(double: Endpoint, connect: Connect) -> None:
    double.script = [says("Your order is on its way.")]
    heard: list[tuple[int, str]] = []
    reply = await ask(connect(), heard)
    assert reply.text == "Your order is on its way."
    assert reply.finish == "stop"
    assert len(heard) > 1
    assert "".join(text for _, text in heard) == reply.text


async def test_a_call_is_put_together_from_its_pieces(double: Endpoint, connect: Connect) -> None:
    arguments = json.dumps({"code": "print('ü')"})
    double.script = [calls(("run_cell", arguments), text="Let me look.")]
    reply = await ask(connect())
    assert [(call.name, call.arguments) for call in reply.calls] == [("run_cell", arguments)]
    assert reply.text == "Let me look."


async def test_whole_calls_without_index_are_kept_apart(double: Endpoint, connect: Connect) -> None:
    made = [{"id": f"c{i}", "function": {"name": f"f{i}", "arguments": "{}"}} for i in range(2)]
    double.script = [stream(*(chunk({"tool_calls": [call]}) for call in made), chunk({}, "tool_calls"))]
    reply = await ask(connect())
    assert [(call.id, call.name) for call in reply.calls] == [("c0", "f0"), ("c1", "f1")]


async def test_the_endpoints_own_figures_are_read(double: Endpoint, connect: Connect) -> None:
    double.script = [stream(chunk({"content": "hi"}), chunk({}, "stop"), usage(120, 64, 3))]
    assert (await ask(connect())).usage == Usage(120, 64, 3)


async def test_the_request_names_model_key_and_output_limit(double: Endpoint, connect: Connect) -> None:
    double.script = [says("hi")]
    await ask(connect(name="some-model"), max_output=77)
    assert double.requests[0]["model"] == "some-model"
    assert double.requests[0]["max_completion_tokens"] == 77
    assert "tools" not in double.requests[0]
    assert double.authorization == [f"Bearer {KEY}"]


async def test_a_refusal_is_text(double: Endpoint, connect: Connect) -> None:
    double.script = [stream(chunk({"refusal": "I cannot help with that."}), chunk({}, "stop"))]
    assert (await ask(connect())).text == "I cannot help with that."


async def test_failures_of_the_server_are_repeated(double: Endpoint, connect: Connect) -> None:
    double.script = [fails(500), fails(503), says("hi")]
    assert (await ask(connect(retries=2))).text == "hi"
    assert len(double.requests) == 3


async def test_repeats_are_limited(double: Endpoint, connect: Connect) -> None:
    double.script = [fails(500, "out of order")]
    said = await failure(connect(retries=1))
    assert len(double.requests) == 2
    assert "500" in said
    assert "out of order" in said


async def test_the_servers_own_delay_is_kept(double: Endpoint, connect: Connect) -> None:
    opened = time() + 1

    async def closed_for_a_second(request: Request) -> Response:
        return await (fails(429, retry_after="1") if time() < opened else says("hi"))(request)

    double.script = [closed_for_a_second]
    assert (await ask(connect(retries=1))).text == "hi"


async def test_a_delay_beyond_the_turns_patience_is_not_waited_for(double: Endpoint, connect: Connect) -> None:
    double.script = [fails(429, retry_after="3600"), says("hi")]
    said = await failure(connect(), patience_s=30)
    assert "429" in said
    assert "3600 s" in said
    assert len(double.requests) == 1


async def test_a_delay_may_be_a_date(double: Endpoint, connect: Connect) -> None:
    double.script = [fails(503, retry_after=formatdate(time() + 4000, usegmt=True)), says("hi")]
    await failure(connect(), patience_s=30)
    assert len(double.requests) == 1


async def test_an_exhausted_quota_is_not_repeated(double: Endpoint, connect: Connect) -> None:
    double.script = [fails(429, "pay first", code="insufficient_quota")]
    assert "quota" in await failure(connect())
    assert len(double.requests) == 1


@pytest.mark.parametrize("play", [never_answers, trickles(chunk({"content": "."})), trickles(b": ping\n\n")])
async def test_a_reply_that_never_ends_times_out(double: Endpoint, connect: Connect, play: object) -> None:
    double.script = [play]  # type: ignore[list-item]
    said = await failure(connect(timeout_s=0.3, retries=1))
    assert "0.3 s" in said
    assert len(double.requests) == 2


async def test_a_repeat_starts_the_text_over(double: Endpoint, connect: Connect) -> None:
    double.script = [breaks_off(chunk({"content": "Your or"})), says("Your order")]
    heard: list[tuple[int, str]] = []
    reply = await ask(connect(), heard)
    assert reply.text == "Your order"
    assert "".join(text for attempt, text in heard if attempt == 2) == "Your order"


@pytest.mark.parametrize(
    "play",
    [
        breaks_off(chunk({"content": "half"})),
        stream(chunk({"content": "half"})),
        raw(chunk({"content": "half"}) + b'data: {"choices": [{"del'),
        raw(b""),
    ],
    ids=["connection lost", "no finish", "cut in a line", "no body"],
)
async def test_a_broken_stream_is_no_reply(double: Endpoint, connect: Connect, play: object) -> None:
    double.script = [play]  # type: ignore[list-item]
    await failure(connect(retries=1))
    assert len(double.requests) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"data: not json\n\n",
        b'data: {"choices": "none"}\n\n',
        b'data: {"choices": [{"delta": null}]}\n\n',
        b"data: [1, 2]\n\n",
        b'data: {"choices": [], "usage": {"prompt_tokens": "many"}}\n\n',
        b"<html>It works!</html>",
    ],
)
async def test_what_is_no_completion_is_named_so(double: Endpoint, connect: Connect, body: bytes) -> None:
    double.script = [raw(body)]
    said = await failure(connect(retries=0))
    assert "127.0.0.1" in said


async def test_an_error_inside_the_stream_is_passed_on(double: Endpoint, connect: Connect) -> None:
    double.script = [raw(chunk({"content": "a"}) + b'data: {"error": {"message": "overloaded"}}\n\n')]
    assert "overloaded" in await failure(connect(retries=0))


@pytest.mark.parametrize(
    "delta", [{"content": "x" * 1000}, {"tool_calls": [{"index": 0, "function": {"arguments": "y" * 1000}}]}]
)
async def test_a_reply_past_its_limit_is_cut_off(double: Endpoint, connect: Connect, delta: dict[str, object]) -> None:
    double.script = [floods(delta, times=5000)]
    reply = await ask(connect(), max_output=100)
    assert reply.finish == "length"
    assert len(reply.text) + sum(len(call.arguments) for call in reply.calls) < 10_000


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "model.name"), (400, "refused the request")],
)
async def test_what_cannot_succeed_is_not_repeated(double: Endpoint, connect: Connect, status: int, hint: str) -> None:
    double.script = [fails(status)]
    assert hint in await failure(connect())
    assert len(double.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_the_key_is_in_no_error(double: Endpoint, connect: Connect, status: int) -> None:
    double.script = [fails(status, f"Incorrect API key provided: {KEY} ({KEY[:9]}***)\x1b[31m", code="invalid_api_key")]
    with pytest.raises(ModelError) as caught:
        await ask(connect(retries=0))
    said = str(caught.value)
    assert KEY not in said
    assert KEY[:9] not in said
    assert said.isprintable()
    assert caught.value.__suppress_context__


async def test_a_key_of_any_shape_is_struck_out(double: Endpoint) -> None:
    key = "7Kd93hf0aQx"
    double.script = [fails(400, f"no rights for {key}")]
    client = ModelClient(ModelSettings(), api_key=key, base_url=double.url)
    said = await failure(client)
    await client.close()
    assert "no rights for ***" in said


async def test_an_endpoint_that_is_not_there_is_named() -> None:
    client = ModelClient(
        ModelSettings(retries=1), api_key=KEY, base_url="http://user:secret@127.0.0.1:9/v1", backoff_s=0.01
    )
    said = await failure(client)
    await client.close()
    assert "127.0.0.1:9" in said
    assert "secret" not in said


async def test_without_key_and_endpoint_there_is_no_client() -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        ModelClient(ModelSettings(), api_key=None, base_url=None)


async def test_an_endpoint_of_ones_own_needs_no_key(double: Endpoint) -> None:
    double.script = [says("hi")]
    client = ModelClient(ModelSettings(), api_key=None, base_url=double.url)
    assert (await ask(client)).text == "hi"
    await client.close()


async def test_cancelling_closes_the_connection(double: Endpoint, connect: Connect) -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def play(request: object) -> object:
        response = await never_answers(request)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(gone.set)
        return response

    double.script = [play]  # type: ignore[list-item]
    task = asyncio.create_task(ask(connect()))
    while not double.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await gone.wait()
