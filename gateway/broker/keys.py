"""What a call is known by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class CallKey:
    """What makes two calls the same one."""

    session: str
    cell: str
    tool: str
    args_hash: str
    occurrence: int

    @cached_property
    def idempotency_key(self) -> str:
        """Follows from the rest, so that no attempt can have another one."""
        parts = json.dumps([self.session, self.cell, self.tool, self.args_hash, self.occurrence])
        return hashlib.sha256(parts.encode()).hexdigest()[:32]
