"""A cell's check before it runs: parse, type-check against the tools and the session's own names, advice.

This is correctness, not security: it spares a model a failed cell and the world half a change. What a cell may do is
decided by the sandbox and by the broker, whatever was found here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import structlog

from gateway.checking import words
from gateway.checking.history import History
from gateway.checking.judge import judge, undefined
from gateway.checking.messages import Question, Reading
from gateway.checking.stubs import Stubs, make_stubs
from gateway.checking.types import Check, Finding, Kind
from gateway.checking.workers import NoAnswer, Workers
from gateway.settings import CheckSettings
from servers.registry import Registry

log = structlog.get_logger(__name__)

#: Sets of tools whose stubs are known at a time.
_STUBS = 64
#: Cells of more characters are judged in a thread.
_LONG = 4000
#: Findings of one cell.
_MOST = 50


class Look(msgspec.Struct, frozen=True):
    """What the kernel says of names: which it does not have, and whose values are others than it told last."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


#: Asks the session's kernel about names; None where it does not answer.
Asker = Callable[[Sequence[str]], Awaitable[Look | None]]


class Checker:
    """All checks of this gateway."""

    def __init__(self, settings: CheckSettings, folder: Path) -> None:
        """`folder`: for the stubs; of this user alone."""
        self._settings = settings
        self._folder = folder
        self._workers = Workers(
            folder, most=settings.processes, memory_mb=settings.memory_mb, start_timeout_s=settings.start_timeout_s
        )
        #: By the identity of the tools, which are kept with them.
        self._stubs: dict[int, tuple[Registry, asyncio.Task[Stubs]]] = {}

    @property
    def mode(self) -> str:
        return self._settings.mode

    @property
    def workers(self) -> Workers:
        return self._workers

    def history(self) -> History:
        """Of a kernel that is new."""
        return History(self._settings.history_kb * 1024)

    async def warm(self, registry: Registry) -> None:
        """Have a process ready before the first cell comes. Never raises."""
        if self.mode == "off":
            return
        try:
            stubs = await self._stubs_of(registry, self._settings.start_timeout_s)
            question = Question(str(stubs.folder), "from servers import *")
            await self._workers.ask(question, self._settings.start_timeout_s)
        except (NoAnswer, OSError) as error:
            log.warning("cells cannot be checked", error=str(error))

    async def close(self) -> None:
        await self._workers.close()
        await asyncio.gather(*(task for _, task in self._stubs.values()), return_exceptions=True)

    async def check(self, code: str, history: History, registry: Registry) -> Draft:
        """What can be said without the kernel. Never raises; takes up to `timeout_s`."""
        began = time.perf_counter()
        try:
            if len(code) > self._settings.code_kb * 1024:
                raise NoAnswer(f"it is larger than {self._settings.code_kb} KiB (check.code_kb)")
            stubs = await self._stubs_of(registry, self._settings.timeout_s)
            question = Question(str(stubs.folder), code, history.earlier)
            reading = await self._workers.ask(question, self._settings.timeout_s)
            if reading.unchecked:
                raise NoAnswer(reading.unchecked)
            history.reached(reading.reach)
            # the broker's validation of values may take its time where a cell is mostly data
            found = await asyncio.to_thread(judge, reading, stubs) if len(code) > _LONG else judge(reading, stubs)
        except (NoAnswer, OSError) as error:
            log.info("cell not checked", why=str(error))
            return Draft(Reading(), None, (), _ms(began), note=f"not checked: {error}")
        return Draft(reading, stubs, tuple(found), _ms(began))

    async def conclude(self, draft: Draft, ask: Asker) -> Check:
        """The check, held against the kernel where that matters: what would stop the cell is true of its names now."""
        began = time.perf_counter()
        found = list(draft.findings)
        names = {name: where for name, where in undefined(draft.reading).items() if name not in _ALWAYS}
        typed = draft.reading.typed if any(finding.kind == "certain" for finding in found) else ()
        if names or typed:
            look = await ask([*names, *typed])
            if look is None:
                found = [_doubted(finding) for finding in found if draft.reading.typed]
            else:
                if set(look.changed) & set(typed):
                    found = [_doubted(finding) for finding in found]
                found += _undefined(draft, names.keys() & set(look.missing))
        found.sort(key=lambda finding: finding.line)
        stopped = self.mode == "enforce" and any(finding.kind == "certain" for finding in found)
        return Check(tuple(found[:_MOST]), stopped, draft.ms + _ms(began), draft.note)

    async def _stubs_of(self, registry: Registry, timeout_s: float) -> Stubs:
        """Made beside all else for each set of tools; a cell that comes before they are there does not wait for ever.

        Raises:
            OSError
            NoAnswer
        """
        if id(registry) not in self._stubs:
            if len(self._stubs) >= _STUBS:
                self._stubs.pop(next(iter(self._stubs)))
            making = asyncio.create_task(asyncio.to_thread(make_stubs, registry, self._folder))
            self._stubs[id(registry)] = registry, making
        _, task = self._stubs[id(registry)]
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(task)
        except TimeoutError:
            raise NoAnswer("the stubs of its tools are being made") from None
        except OSError:
            self._stubs.pop(id(registry), None)
            raise


class Draft(msgspec.Struct, frozen=True):
    """A check before the kernel was asked."""

    reading: Reading
    stubs: Stubs | None
    findings: tuple[Finding, ...]
    ms: float
    note: str = ""


#: What every kernel has.
_ALWAYS = frozenset({"In", "Out", "_", "__", "___", "display", "exit", "get_ipython", "quit", "__name__"})


def _undefined(draft: Draft, missing: set[str]) -> list[Finding]:
    """Names that are not there; certain at the top of a cell that makes no names in ways that nobody sees."""
    found = []
    reading, stubs = draft.reading, draft.stubs
    tools = [tool.qualified_name for tool in stubs.registry] if stubs else []
    for name, diagnoses in undefined(reading).items():
        if name not in missing:
            continue
        owners = [tool for tool in tools if tool.rpartition(".")[2] == name]
        message = words.undefined(name, sorted({*reading.bound, *reading.reach}), owners)
        for diagnosis in diagnoses[:1]:
            place = diagnosis.place
            doubtful = place.guarded or place.deferred or reading.opaque
            kind: Kind = "likely" if doubtful else "certain"
            found.append(Finding(place.line, kind, "NameError", message, diagnosis.source))
    return found


def _doubted(finding: Finding) -> Finding:
    """Less sure where it hangs on types that earlier cells gave."""
    sure = finding.kind != "certain" or finding.name in ("SyntaxError", "ImportError", "ModuleNotFoundError")
    return finding if sure else msgspec.structs.replace(finding, kind="likely")


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
