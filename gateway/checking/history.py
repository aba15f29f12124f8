"""What a session's cells have made of its namespace, as far as the next cell's check needs it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

from gateway.checking.messages import Earlier

_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_PACKAGE = "servers"


class History:
    """The cells of one kernel, from its first on. Bounded: of older ones only the names are kept."""

    def __init__(self, most_chars: int = 64 * 1024, *, whole: bool = True) -> None:
        """`whole`: False where earlier cells are not known, those of an adopted kernel."""
        self._whole = whole
        self._most = most_chars
        self._cells: deque[Earlier] = deque()
        self._chars = 0
        #: Names of cells that were let go: what they hold is not known any more.
        self._forgotten: set[str] = set()
        self._reach: set[str] = set()

    @property
    def earlier(self) -> tuple[Earlier, ...]:
        before = Earlier("", ok=True, changed=tuple(sorted(self._forgotten)))
        return (before, *self._cells) if self._forgotten else tuple(self._cells)

    def reaches_tools(self, code: str) -> bool:
        """Whether a cell could call a tool: by an import of its own, or by a name that leads to one."""
        return not self._whole or _PACKAGE in code or not self._reach.isdisjoint(_IDENTIFIER.findall(code))

    def reached(self, names: Iterable[str]) -> None:
        """Names that lead to tools."""
        self._reach.update(names)

    def add(self, code: str, *, ok: bool, changed: Iterable[str], all_changed: bool = False) -> None:
        """A cell that was in the kernel. `changed`: names whose values are others now; `all_changed`: any may be."""
        if all_changed:
            self._forget_all()
        self._cells.append(Earlier(code, ok, tuple(changed)))
        self._chars += len(code)
        while self._chars > self._most:
            self._forget(self._cells.popleft())

    def _forget(self, cell: Earlier) -> None:
        self._chars -= len(cell.code)
        self._forgotten.update(_IDENTIFIER.findall(cell.code), cell.changed)

    def _forget_all(self) -> None:
        while self._cells:
            self._forget(self._cells.popleft())
