"""The traditional arm: the same work by tools called one by one, every result through the model's context.

Both arms are turns of the gateway's own agent, in its two modes, with a model behind a real OpenAI-compatible endpoint
that plays a script: in `direct` mode a call a request, in `cells` mode one cell. Tokens are those of the requests that
were really sent, counted by the ledger that serves customers' turns. `docs/savings.md` says what this assumes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from demo.model.app import MODEL, create_app
from demo.model.script import Call, Script, Step
from demo.serving import address, listen
from gateway.agent.types import Mode, TurnResult
from gateway.runtime import Gateway, open_gateway
from gateway.settings import (
    AgentSettings,
    ApprovalSettings,
    CellSettings,
    ModelSettings,
    PoolSettings,
    Settings,
    TenantSettings,
)
from gateway.tokens import Prices
from gateway.types import Event
from servers.tool import Role

TENANT = "bench"
_KEY = "bench-model"
_START_S = 30.0


@dataclass(frozen=True)
class Workload:
    """One piece of work, done both ways: by `cell`, and by `calls`, which get the same from the same tools."""

    name: str
    request: str
    cell: str
    calls: tuple[Call, ...]
    answer: str
    role: Role = "operator"
    #: A cell that is run before, in neither way's account.
    before: str = ""

    @property
    def script(self) -> Script:
        return Script(self.name, self.request, (Step(self.cell, self.calls),), self.answer)


@dataclass(frozen=True)
class Arm:
    """What one way came to: the model's tokens and money, and wall time."""

    usage: Mapping[str, Any]
    seconds: float
    #: Input of the last request: every result once. No way of calling directly reads less.
    last_input: int
    #: What the cells gave back to the model; nothing for direct calls.
    envelopes: tuple[str, ...]

    @property
    def input(self) -> int:
        return int(self.usage["input"])


@contextlib.contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The application on loopback in a thread; its address."""
    with listen() as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + _START_S
            while not server.started:
                if not thread.is_alive() or time.monotonic() > deadline:
                    raise RuntimeError("the benchmark's own server did not start")
                time.sleep(0.01)
            yield address(listener)
        finally:
            server.should_exit = True
            thread.join(_START_S)


@contextlib.asynccontextmanager
async def arms(
    workloads: Sequence[Workload], tenant: TenantSettings, folder: Path, everyday: Sequence[str]
) -> AsyncIterator[Gateway]:
    """A gateway whose model plays these workloads; its functions in direct mode are `everyday` and no others.

    No limit of a turn is in the way: what a direct turn would need beyond them is a part of what is measured.
    """
    scripts = {each.request: each.script for each in workloads}
    with served(create_app(scripts, _KEY)) as model:
        settings = Settings(
            data_dir=folder / "data",
            database_url=None,
            openai_api_key=_KEY,
            openai_base_url=f"{model}/v1",
            model=ModelSettings(name=MODEL, timeout_s=600),
            agent=AgentSettings(
                everyday_tools=tuple(everyday),
                direct_tools=len(everyday),
                max_steps=10_000,
                max_tokens=10**12,
                max_seconds=3600,
                max_dollars=10**9,
            ),
            cell=CellSettings(deadline_s=600),
            pool=PoolSettings(warm=1, preload=()),
            approvals=ApprovalSettings(hold_s=0, hold_chat_s=0),
            tenants={TENANT: tenant},
        )
        async with open_gateway(settings) as gateway:
            yield gateway


async def run_arm(gateway: Gateway, workload: Workload, mode: Mode) -> Arm:
    """The workload in a session of its own. Raises RuntimeError unless the turn ended with the script's answer."""
    session = await gateway.sessions.create(TENANT, "bench", workload.role, workload.name, kernel=False)

    async def nothing(_: Event) -> None:
        pass

    if workload.before:
        run = await gateway.sessions.run_cell(session.id, workload.before)
        if run.result.status != "ok":
            raise RuntimeError(f"{workload.name}, before: {run.envelope}")
    started = time.perf_counter()
    result: TurnResult = await (await gateway.chat.start(session, workload.request, nothing, mode))
    seconds = time.perf_counter() - started
    await gateway.sessions.end(session.id)
    if result.answer != workload.answer:
        raise RuntimeError(f"{workload.name}, {mode}: {result.reason}: {result.answer or result.message}")
    envelopes = tuple(run.envelope for step in result.steps for run in step.runs)
    usage = result.tokens.as_dict(Prices.from_settings(gateway.settings.model))
    return Arm(usage, seconds, result.tokens.requests[-1].input, envelopes)
