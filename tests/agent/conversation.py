"""One conversation with the agent, and what was heard of it."""

from __future__ import annotations

from collections.abc import Callable

from gateway.agent.loop import run_turn
from gateway.agent.model import ModelClient
from gateway.agent.types import Actor, Message, TurnLimits, TurnResult
from gateway.tokens import Ledger
from gateway.types import Event

SYSTEM = "You answer customers."


class Turns:
    """Runs turns of one conversation and keeps what was heard."""

    def __init__(self, connect: Callable[..., ModelClient], actor: Actor) -> None:
        self.connect = connect
        self.actor = actor
        self.history: list[Message] = []
        self.ledger = Ledger()
        self.events: list[Event] = []

    async def run(
        self,
        message: str = "Where is my order?",
        *,
        fallback: Actor | None = None,
        settings: dict[str, object] | None = None,
        **limits: float,
    ) -> TurnResult:
        async def sink(event: Event) -> None:
            self.events.append(event)

        result = await run_turn(
            session="s1",
            message=message,
            history=self.history,
            model=self.connect(**(settings or {})),
            actor=self.actor,
            limits=TurnLimits(**limits),  # type: ignore[arg-type]
            sink=sink,
            fallback=fallback,
            ledger=self.ledger,
        )
        self.history += result.messages
        return result

    def heard(self, kind: str) -> list[dict[str, object]]:
        return [event.data for event in self.events if event.kind == kind]
