"""A checker without a gateway: sessions of cells that are checked and not run."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio.from_thread import BlockingPortal, start_blocking_portal

from gateway.checking.checker import Checker, Look
from gateway.checking.history import History
from gateway.checking.types import Check
from gateway.settings import CheckSettings
from servers.registry import Registry, load_registry


@dataclass
class CheckWorld:
    checker: Checker
    registry: Registry
    portal: BlockingPortal

    def check(self, code: str, before: Sequence[str] = (), history: History | None = None) -> Check:
        """The check of a cell after others that ran well. The kernel has what they name, and what every kernel has."""
        if history is None:
            history = self.ran(before)
        known = (
            {f"_{kind}{number}" for kind in ("", "i") for number in range(1, 9)}
            | set(dir(builtins))
            | {name for cell in before for name in re.findall(r"\w+", cell)}
        )

        async def ask(names: Sequence[str]) -> Look:
            return Look(missing=tuple(name for name in names if name not in known))

        async def checked() -> Check:
            draft = await self.checker.check(code, history, self.registry)
            return await self.checker.conclude(draft, ask)

        return self.portal.call(checked)

    def ran(self, cells: Sequence[str]) -> History:
        history = self.checker.history()
        for cell in cells:
            history.add(cell, ok=True, changed=())
        return history


@contextmanager
def check_world(folder: Path, registry: Registry | None = None, **settings: object) -> Iterator[CheckWorld]:
    registry = registry or load_registry()
    values = {"timeout_s": 60.0, "processes": 1} | settings
    with start_blocking_portal() as portal:

        async def make() -> Checker:
            return Checker(CheckSettings.model_validate(values), folder)

        checker = portal.call(make)
        try:
            yield CheckWorld(checker, registry, portal)
        finally:
            portal.call(checker.close)
