from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from shop_double import Conversation, ShopDouble, running_shop

from demo import tau


@pytest.fixture(scope="session")
def shop_process() -> Iterator[ShopDouble]:
    with running_shop() as shop:
        yield shop


@pytest.fixture
def shop(shop_process: ShopDouble) -> Iterator[ShopDouble]:
    """The shop double as it was at the start."""
    shop_process.reset()
    yield shop_process
    shop_process.reset()


@pytest.fixture(scope="session")
def reference() -> tau.Reference:
    return tau.Reference()


@pytest.fixture
def conversation(shop: ShopDouble) -> Iterator[Conversation]:
    loop = asyncio.new_event_loop()
    http = httpx.AsyncClient(verify=False)  # no https here: spares reading the certificates
    try:
        yield Conversation(shop.shop, loop, http)
    finally:
        loop.run_until_complete(http.aclose())
        loop.close()
