"""The data and the two protocols that cross the agent's seams: model, actor, cells, turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gateway.settings import AgentSettings
from gateway.tokens import TurnTokens
from gateway.types import CallRecord, CellRun, EventSink, Grant

#: One message of a chat-completions request, as it goes over the wire.
Message = dict[str, Any]
#: One function tool of a chat-completions request, as it goes over the wire.
FunctionTool = dict[str, Any]

Mode = Literal["cells", "direct"]

#: The tool by which a cell answers the customer. It does nothing itself, and direct calls have no use for it.
REPLY = "support.reply"

#: Why a turn ended. "sandbox_down": cells cannot run and there is no fallback. "paused": a person has to approve
#: something first; the customer has been told so.
EndReason = Literal[
    "answered",
    "max_steps",
    "max_tokens",
    "max_seconds",
    "max_dollars",
    "bad_replies",
    "model_error",
    "sandbox_down",
    "cancelled",
    "paused",
]


@dataclass(frozen=True)
class TurnLimits:
    """What one turn may use. Reaching one ends the turn in order, with a reason of the same name."""

    max_steps: int = 12
    max_tokens: int = 200_000
    max_seconds: float = 180.0
    max_dollars: float = 1.0
    #: Unusable replies of the model in a row.
    max_bad_replies: int = 3
    #: What the customer is told of a call that waits for a person, where the model finds no words.
    paused_answer: str = "A colleague has to approve this first. I have passed it on and will let you know."

    @classmethod
    def from_settings(cls, settings: AgentSettings) -> TurnLimits:
        return cls(
            max_steps=settings.max_steps,
            max_tokens=settings.max_tokens,
            max_seconds=settings.max_seconds,
            max_dollars=settings.max_dollars,
            max_bad_replies=settings.max_bad_replies,
            paused_answer=settings.paused_answer,
        )


@dataclass(frozen=True)
class ToolCall:
    """One function call in a model's reply. `arguments` is what the model wrote: maybe not JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Action:
    """A function call that was understood: the function exists and the arguments are a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One request to the model and what its reply led to. Times in seconds."""

    number: int
    mode: Mode
    #: Pseudo-cell or cell ids that the step ran, in order.
    cells: tuple[str, ...]
    runs: tuple[CellRun, ...]
    calls: tuple[CallRecord, ...]
    #: Why the reply was unusable, else "".
    fault: str
    model_s: float
    act_s: float


@dataclass(frozen=True)
class TurnResult:
    """How a turn went.

    `messages` are the turn's own messages, the customer's first; history plus them is the next turn's history, valid
    for the API whatever the reason (every tool call has its answer). `answer` is the text for the customer, "" unless
    `reason` is "answered" or "paused"; `message` is one sentence for people on why the turn ended, "" when there is an
    answer.
    """

    session: str
    reason: EndReason
    answer: str
    message: str
    messages: tuple[Message, ...]
    steps: tuple[Step, ...]
    tokens: TurnTokens
    #: The actor at the end; differs from the first one's after a fallback.
    mode: Mode
    #: Why the turn went on without the sandbox, else "".
    fallback: str
    seconds: float


class RunCell(Protocol):
    """Runs one cell in the conversation's kernel.

    Sends only "output" events to the sink: the actor sends "step" and "cell". A failing cell is a normal return.
    Raises KernelPoolError (PoolExhausted, StartFailed, IsolationUnavailable, KernelGone) when no kernel is to be had;
    the turn then goes on without one. Whether a lost kernel is restored first is the callable's business.
    """

    async def __call__(self, code: str, sink: EventSink) -> CellRun: ...


class ToolBroker(Protocol):
    """What the direct actor needs of `gateway.broker.Broker`."""

    async def begin_cell(self, session: str, cell: str) -> None:
        """Open the pseudo-cell that the session's next calls are journaled under."""
        ...

    async def end_cell(self, session: str) -> tuple[CallRecord, ...]:
        """Close it; its calls as the journal has them."""
        ...

    async def call(self, grant: Grant, tool: str, args: dict[str, Any]) -> object:
        """Raises servers.errors.ToolError."""
        ...


@dataclass(frozen=True)
class Acted:
    """What an actor made of the actions of one reply: a tool message for each, in order."""

    messages: tuple[Message, ...]
    runs: tuple[CellRun, ...] = ()
    calls: tuple[CallRecord, ...] = ()
    cells: tuple[str, ...] = ()
    #: Set when the actor cannot act any more (no kernel to be had): why. Its messages are complete all the same.
    unavailable: str = ""
    #: Set when the turn was cancelled meanwhile; what was under way has been stopped.
    cancelled: bool = False
    #: Set when a call waits for a person: nothing more is done in this turn.
    paused: bool = False
    #: What the last cell answered the customer, having run to its end: the turn is over.
    answer: str = ""


class Actor(Protocol):
    """How a turn acts on the world: cells in a kernel, or direct tool calls. One conversation's, stateless."""

    @property
    def mode(self) -> Mode: ...

    @property
    def system(self) -> str:
        """The system prompt: the same text for every request of a conversation."""
        ...

    @property
    def tools(self) -> Sequence[FunctionTool]: ...

    def check(self, call: ToolCall) -> Action | str:
        """The call, understood; or what is wrong with it, in words that let the model do better."""
        ...

    async def act(self, step: int, actions: Sequence[Action], sink: EventSink) -> Acted:
        """Carry out the actions in order. Never raises for what a tool, a cell or a kernel does."""
        ...
