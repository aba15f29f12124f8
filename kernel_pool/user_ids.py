"""Who has which system user: kernels of all places of this process draw from one range and never share one."""

from __future__ import annotations

import secrets

from kernel_pool.types import StartFailed

#: Of all places of this process.
_in_use: set[int] = set()


class UserIds:
    """The user ids of one place's kernels, out of `uid_range` (first, count)."""

    def __init__(self, uid_range: tuple[int, int]) -> None:
        self._first, self._size = uid_range
        self._own: set[int] = set()

    def take(self) -> int:
        """One that no kernel has; at random, for other processes draw from the same range. Raises StartFailed."""
        last = self._first + self._size
        if sum(self._first <= uid < last for uid in _in_use) >= self._size:
            raise StartFailed(f"all {self._size} user ids for kernels are in use; raise uid_count")
        while (uid := self._first + secrets.randbelow(self._size)) in _in_use:
            pass
        self.add(uid)
        return uid

    def add(self, uid: int) -> None:
        """Take the one that a kernel of an earlier gateway has."""
        _in_use.add(uid)
        self._own.add(uid)

    def discard(self, uid: int) -> None:
        """Give back one of this place's."""
        if uid in self._own:
            self._own.discard(uid)
            _in_use.discard(uid)

    def close(self) -> None:
        """Give back all."""
        for uid in tuple(self._own):
            self.discard(uid)
