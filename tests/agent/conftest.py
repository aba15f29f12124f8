from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from actor_doubles import GRANT, Notebook, Tools, function
from conversation import SYSTEM, Turns
from model_double import KEY, Endpoint, Server, serving

from gateway.agent.cells import CellActor
from gateway.agent.direct import DirectActor
from gateway.agent.model import ModelClient
from gateway.settings import ModelSettings
from servers.errors import ToolInputError


@pytest.fixture(scope="session")
def model_server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def double(model_server: Server) -> Endpoint:
    model_server.current = Endpoint()
    model_server.current.url = model_server.url
    return model_server.current


@pytest.fixture
async def connect(double: Endpoint) -> AsyncIterator[Callable[..., ModelClient]]:
    """Makes clients of the double; settings as arguments."""
    clients: list[ModelClient] = []

    def make(**settings: object) -> ModelClient:
        chosen = ModelSettings.model_validate({"name": "double", "timeout_s": 20, **settings})
        clients.append(ModelClient(chosen, api_key=KEY, base_url=double.url, backoff_s=0.01))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
async def cells(notebook: Notebook) -> CellActor:
    return CellActor(system=SYSTEM, run_cell=notebook.run_cell, interrupt=notebook.interrupt, stop_s=5)


@pytest.fixture
async def tools() -> Tools:
    async def lookup(order_id: str) -> object:
        if not isinstance(order_id, str):
            raise ToolInputError("lookup: order_id must be a string", tool="shop.lookup", hint="order_id='W1'")
        return {"id": order_id, "status": "pending"}

    return Tools(shop__lookup=lookup)


@pytest.fixture
async def direct(tools: Tools) -> DirectActor:
    functions = {"shop.lookup": function("shop__lookup", order_id={"type": "string"})}
    return DirectActor(system="Call functions.", functions=functions, broker=tools, grant=GRANT)


@pytest.fixture
async def turns(connect: Callable[..., ModelClient], cells: CellActor) -> Turns:
    return Turns(connect, cells)


@pytest.fixture
async def direct_turns(connect: Callable[..., ModelClient], direct: DirectActor) -> Turns:
    return Turns(connect, direct)
