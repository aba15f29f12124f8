"""What the calls of a turn would have cost as direct tool calls: the same calls, from the journal, one a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.agent.arguments import assistant_message, tool_message
from gateway.agent.direct import error_json, result_json
from gateway.agent.types import FunctionTool, Message, ToolCall
from gateway.tokens import Ledger, TurnTokens
from gateway.types import CallRecord


async def direct_turn(
    *,
    system: str,
    functions: dict[str, FunctionTool],
    history: Sequence[Message],
    message: str,
    calls: Iterable[CallRecord],
    answer: str,
    ledger: Ledger,
) -> tuple[TurnTokens, tuple[Message, ...]]:
    """The tokens of a turn that makes `calls` directly, and its messages, for the next turn's `history`.

    One call a request, as a model makes them whose next call needs the last one's result; no words beside the calls;
    the same answer. Calls that were answered from the journal by a re-run of their cell count once. `functions` are
    the tools by name, as `DirectActor` takes them; `ledger` is that of the imagined conversation.
    """
    first = len(ledger.requests)
    tools = tuple(functions.values())
    messages: list[Message] = [{"role": "user", "content": message}]
    replies = [_exchange(call, number, functions) for number, call in enumerate(calls, start=1) if not call.replayed]
    for reply, result in [*replies, ({"role": "assistant", "content": answer}, None)]:
        sent = await ledger.count([{"role": "system", "content": system}, *history, *messages], tools)
        await ledger.record(sent, reply)
        messages += [reply] if result is None else [reply, result]
    return ledger.since(first), tuple(messages)


def _exchange(call: CallRecord, number: int, functions: dict[str, FunctionTool]) -> tuple[Message, Message]:
    known = functions.get(call.tool)
    name = known["function"]["name"] if known else call.tool.replace(".", "__")
    if call.error is None:
        text = result_json(call.result)
    else:
        error = call.error
        text = error_json(
            str(error.get("type", "ToolError")),
            str(error.get("message", "")),
            retryable=bool(error.get("retryable")),
            hint=str(error.get("hint", "")),
        )
    made = ToolCall(f"call_{number}", name, result_json(call.args))
    return assistant_message("", [made]), tool_message(made.id, text)
