"""What a call is known by."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import NamedTuple


class CallKey(NamedTuple):
    """What makes two calls the same one."""

    session: str
    cell: str
    tool: str
    args_hash: str
    occurrence: int

    @property
    def idempotency_key(self) -> str:
        """Follows from the rest, so that no attempt can have another one."""
        return _digest(self)


@lru_cache(maxsize=1024)  # one call asks for it several times
def _digest(key: CallKey) -> str:
    return hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:32]
