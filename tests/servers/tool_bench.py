"""What a session gives its tools, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from demo.shop.auth import Key
from servers.catalog.embedding import MiniLm
from servers.context import Shop, ToolContext
from servers.errors import ToolDenied
from servers.registry import Registry

KEY = Key("ck_test_consumer", "cs_test_secret")
CONTROL = "controls"


@dataclass
class Pins:
    """A session's pins, kept in memory."""

    customer: int | None = None
    customer_required: bool = False

    async def pin_customer(self, customer_id: int) -> None:
        if self.customer not in (None, customer_id):
            raise ToolDenied("another customer is pinned")
        self.customer = customer_id


@dataclass(frozen=True)
class Bench:
    """Tools as a session has them. `with_` gives the same with other surroundings."""

    registry: Registry
    context: ToolContext

    def with_(self, **changes: Any) -> Bench:
        return replace(self, context=replace(self.context, **changes))

    async def call(self, name: str, /, **args: Any) -> Any:
        return await self.registry.get(name).call(self.context, args)


def context_for(url: str, http: httpx.AsyncClient) -> ToolContext:
    return ToolContext(
        tenant="retail",
        session="s1",
        pins=Pins(),
        idempotency_key="key-1",
        resuming=False,
        http=http,
        shop=Shop(url, KEY.consumer_key, KEY.consumer_secret, timeout_s=30),
    )


class Remembering(MiniLm):
    """The model, which embeds each text of this test run once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, list[float]] = {}

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= zip(fresh, await super().embed(fresh), strict=True)
        return [self._known[text] for text in texts]
