"""The scripted model, as the `openai` client sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from shop_double import Conversation, ShopDouble

from demo import check, tau
from demo.model.script import Script, save
from demo.model.solution import solve

TASKS = {task.id: task for task in tau.load_tasks()}
#: One with exchanges and a cancellation, one that starts with a failing cell, one whose write the shop refuses first.
CHOSEN = ("98", "54", "13")
RUN_CELL = {"type": "function", "function": {"name": "run_cell", "parameters": {"type": "object"}}}
KEY = "model-key"


@pytest.fixture(scope="module")
def scripts(reference: tau.Reference) -> dict[str, Script]:
    return {i: solve(TASKS[i], tau.load_data(), reference.run(TASKS[i].actions).refused) for i in CHOSEN}


@pytest.fixture(scope="module")
def url(scripts: dict[str, Script], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path: Path = tmp_path_factory.mktemp("model") / "scripts.json"
    save(scripts.values(), path)
    command = [sys.executable, "-m", "demo.model", "--scripts", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"MODEL_KEY": KEY}) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("listening on ").strip() + "/v1"
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
        yield client


def functions(conversation: Conversation) -> list[Any]:
    return conversation.registry.openai_tools(name for name in conversation.registry.names)


def envelope(shown: str, error: Exception | None) -> str:
    """What the gateway gives back of a cell, as far as a model needs it."""
    if error is None:
        return f"status: ok   cell: 1   4 ms\nout:    {shown}"
    return f"status: error   cell: 1   4 ms\nerror:  {type(error).__name__}: {error}"


def play(client: openai.OpenAI, message: str, tools: Sequence[Any], conversation: Conversation) -> tuple[str, int]:
    """A plain agent loop: the answer, and the number of requests to the model."""
    messages: list[Any] = [{"role": "system", "content": "You serve."}, {"role": "user", "content": message}]
    for requests in range(1, 40):
        reply = client.chat.completions.create(model="scripted", messages=messages, tools=tools).choices[0]
        if reply.finish_reason == "stop":
            return reply.message.content or "", requests
        assert reply.message.tool_calls is not None
        messages.append(reply.message.model_dump(exclude_none=True))
        for call in reply.message.tool_calls:
            assert call.type == "function"
            result = act(call.function.name, json.loads(call.function.arguments), conversation)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise AssertionError("the model does not come to an end")


def act(function: str, arguments: dict[str, Any], conversation: Conversation) -> str:
    if function == "run_cell":
        return envelope(*conversation.run(arguments["code"]))
    try:
        return json.dumps(conversation.call(function.replace("__", ".", 1), arguments))
    except Exception as error:  # noqa: BLE001 - a failing tool is a result
        return json.dumps({"error": {"message": str(error)}}, separators=(",", ":"))


@pytest.mark.parametrize("task", CHOSEN)
@pytest.mark.parametrize("mode", ["cells", "direct"])
def test_both_ways_of_acting_come_to_the_references_state(
    task: str,
    mode: str,
    client: openai.OpenAI,
    scripts: dict[str, Script],
    conversation: Conversation,
    shop: ShopDouble,
    reference: tau.Reference,
) -> None:
    script = scripts[task]
    tools = [RUN_CELL] if mode == "cells" else functions(conversation)
    answer, requests = play(client, script.message, tools, conversation)
    assert answer == script.answer
    assert requests == 1 + (len(script.steps) if mode == "cells" else len(script.calls))
    assert conversation.calls == [call for call, _ in script.calls]
    assert check.differences(reference.run(TASKS[task].actions).state, shop.state()) == []


def test_stream_and_whole_say_the_same(client: openai.OpenAI, scripts: dict[str, Script]) -> None:
    messages: Any = [{"role": "user", "content": scripts["98"].message}]
    whole = client.chat.completions.create(model="m", messages=messages, tools=[RUN_CELL])  # type: ignore[list-item]
    stream = client.chat.completions.create(
        model="m",
        messages=messages,
        tools=[RUN_CELL],  # type: ignore[list-item]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    parts = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    arguments = "".join(part.function.arguments or "" for part in parts if part.function)
    assert whole.choices[0].message.tool_calls is not None
    call = whole.choices[0].message.tool_calls[0]
    assert call.type == "function"
    assert (parts[0].id, arguments) == (call.id, call.function.arguments)
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 100


def test_a_step_that_fails_unexpectedly_ends_in_an_apology(client: openai.OpenAI, scripts: dict[str, Script]) -> None:
    messages: Any = [{"role": "user", "content": scripts["98"].message}]
    first = client.chat.completions.create(model="m", messages=messages, tools=[RUN_CELL]).choices[0].message  # type: ignore[list-item]
    assert first.tool_calls is not None
    failed = "status: error   cell: 1   4 ms\nerror:  ToolDenied: not today"
    messages += [
        first.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": failed},
    ]
    answer = client.chat.completions.create(model="m", messages=messages, tools=[RUN_CELL]).choices[0]  # type: ignore[list-item]
    assert answer.finish_reason == "stop"
    assert "ToolDenied: not today" in (answer.message.content or "")


def test_a_turn_that_lost_its_kernel_goes_on_by_direct_calls(
    client: openai.OpenAI, scripts: dict[str, Script], conversation: Conversation
) -> None:
    messages: Any = [{"role": "user", "content": scripts["98"].message}]
    tools: Any = [RUN_CELL]
    for result in (envelope("", None), "Not run: the kernel is not available."):
        reply = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0].message
        assert reply.tool_calls is not None
        done = {"role": "tool", "tool_call_id": reply.tool_calls[0].id, "content": result}
        messages += [reply.model_dump(exclude_none=True), done]
    tools = functions(conversation)
    reply = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0].message
    assert reply.tool_calls is not None
    call = reply.tool_calls[0]
    assert call.type == "function"
    expected = scripts["98"].steps[1].calls[0]
    assert call.function.name.replace("__", ".") == expected.tool
    assert json.loads(call.function.arguments) == expected.arguments


def test_words_that_are_no_task_get_an_honest_answer(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello?"}])
    assert "scripted model" in (reply.choices[0].message.content or "")


def test_a_wrong_key_and_a_request_that_is_none_are_refused(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.AuthenticationError), openai.OpenAI(api_key="wrong", base_url=url) as stranger:
        stranger.models.list()
    with pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", body={"nonsense": 1}, cast_to=object)
