"""What kernels are told about tools: what their session may call, whatever the number of tools, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.broker.calls import Calls
from gateway.broker.errors import to_body
from gateway.broker.looks import Looks
from gateway.broker.scrub import Scrubber
from gateway.broker.server import Door
from gateway.settings import BrokerSettings
from gateway.tool_catalogue import Catalogue
from gateway.tool_search import ToolSearch
from gateway.types import Grant
from kernel_pool.sandbox.lookup import Lookup, NoBroker, NotFound
from servers.errors import ToolInputError
from servers.registry import Registry, load_registry
from servers.tool import EVERYBODY, Parameter, Role, Tool

BUILT_IN = load_registry()


async def nothing(*_: Any, **__: Any) -> dict[str, Any]:
    return {}


def tools_of(server: str, count: int) -> list[Tool]:
    return [
        Tool(
            server=server,
            name=f"do_{i}",
            doc=f"Do thing {i} of {server}.",
            parameters=(Parameter("thing_id", int), Parameter("reason", str, "")),
            returns=dict,
            effect="write",
            roles=EVERYBODY,
            implementation=nothing,
        )
        for i in range(count)
    ]


def with_more(tools: Sequence[Tool]) -> Registry:
    documents = dict.fromkeys((tool.server for tool in tools), "Does things.")
    return Registry([*BUILT_IN, *tools], BUILT_IN.documents | documents)


class Tenants(Catalogue):
    """Tenants with servers of their own."""

    def __init__(self, **tenants: Registry) -> None:
        super().__init__(BUILT_IN)
        self._tenants = tenants

    def of_tenant(self, tenant: str) -> Registry:
        return self._tenants.get(tenant, BUILT_IN)


class NoCalls:
    """In the place of calls, where only questions are asked."""

    def error_body(self, error: Exception, tool: str) -> Any:
        return to_body(cast(Any, error), tool, Scrubber(()))


@asynccontextmanager
async def door(
    folder: Path, catalogue: Catalogue, tenant: str = "a", role: Role = "agent", **settings: Any
) -> AsyncIterator[Path]:
    path = folder / f"{tenant}-{role}.sock"
    grant = Grant(tenant=tenant, principal="test", session=path.stem, role=role)
    limits = BrokerSettings(**settings)
    looks = Looks(grant, ToolSearch(catalogue), limits)
    opened = Door(path, grant, cast(Calls, NoCalls()), looks, limits)
    await opened.open()
    try:
        yield path
    finally:
        await opened.close()


async def asked(path: Path, what: str, *args: Any) -> Any:
    return await asyncio.to_thread(getattr(Lookup(str(path)), what), *args)


async def test_a_session_is_told_of_what_its_role_may_call_and_of_nothing_else(folder: Path) -> None:
    hidden = {tool.qualified_name for tool in BUILT_IN if "agent" not in tool.roles}
    assert "woocommerce.delete_order" in hidden
    async with door(folder, Tenants()) as agent, door(folder, Tenants(), role="operator") as operator:
        for query in ("delete an order", "delete a coupon", "sales report"):
            told = {tool.name for tool in await asked(agent, "search", query, 50)}
            assert not told & hidden
            assert {tool.name for tool in await asked(operator, "search", query, 50)} & hidden
        assert "woocommerce.cancel_order" in {t.name for t in await asked(agent, "search", "cancel an order", 3)}
        assert "woocommerce.delete_order" in {t.name for t in await asked(operator, "search", "delete an order", 5)}
        names = (await asked(agent, "server", "woocommerce")).names
        assert not {f"woocommerce.{name}" for name in names} & hidden
        assert "def delete_order" not in await asked(agent, "pyi", "woocommerce")
        assert "def delete_order" in await asked(operator, "pyi", "woocommerce")
        with pytest.raises(NotFound, match="no tool 'woocommerce"):
            await asked(agent, "tool", "woocommerce.delete_order")
        assert (await asked(operator, "tool", "woocommerce.delete_order")).effect == "critical"


async def test_a_tenant_is_told_nothing_of_anothers_servers(folder: Path) -> None:
    catalogue = Tenants(a=with_more(tools_of("crm_of_a", 3)), b=with_more(tools_of("shipping_of_b", 3)))
    async with door(folder, catalogue, "a") as a, door(folder, catalogue, "b") as b:
        assert [t.name for t in await asked(a, "search", "crm thing 1", 1)] == ["crm_of_a.do_1"]
        told_b = [t.name for t in await asked(b, "search", "crm_of_a do thing", 50)]
        assert "shipping_of_b.do_1" in told_b
        assert not [name for name in told_b if "crm" in name]
        assert "crm_of_a" not in [s.name for s in (await asked(b, "servers")).servers]
        for what, name in (("server", "crm_of_a"), ("tool", "crm_of_a.do_1"), ("pyi", "crm_of_a")):
            with pytest.raises(NotFound) as told:
                await asked(b, what, name)
            with pytest.raises(NotFound) as of_none:
                await asked(b, what, name.replace("crm_of_a", "crm_of_x"))
            assert str(told.value).replace("crm_of_a", "crm_of_x") == str(of_none.value)
    assert b"crm_of_a" not in catalogue.built_in.index()


async def test_many_servers_are_told_page_by_page(folder: Path) -> None:
    many = with_more([tool for i in range(250) for tool in tools_of(f"s{i:03}", 1)])
    async with door(folder, Tenants(a=many)) as path:
        told: list[str] = []
        while page := (await asked(path, "servers", told[-1] if told else "")).servers:
            told += [server.name for server in page]
            assert len(page) <= 100
    assert told == sorted(set(told))
    assert {f"s{i:03}" for i in range(250)} < set(told)


@pytest.mark.parametrize(
    ("what", "args"),
    [
        ("nonsense", b"{}"),
        ("search", b"[]"),
        ("search", b"{}"),
        ("search", b'{"query": 1}'),
        ("search", b'{"query": "x", "limit": 0}'),
        ("search", b'{"query": "x", "limit": true}'),
        ("search", b'{"query": "x", "limit": 1e9}'),
        ("search", json.dumps({"query": "x" * 1001}).encode()),
        ("server", b'{"name": "a\\u0000b"}'),
        ("tool", b"{" * 10_000),
        ("pyi", b"\xff"),
    ],
)
async def test_a_question_that_cannot_be_understood_is_refused(what: str, args: bytes) -> None:
    grant = Grant(tenant="a", principal="test", session="s", role="agent")
    with pytest.raises(ToolInputError):
        await Looks(grant, ToolSearch(Tenants()), BrokerSettings()).answer(what, args)


async def test_a_session_that_asks_too_fast_waits() -> None:
    grant = Grant(tenant="a", principal="test", session="s", role="agent")
    looks = Looks(grant, ToolSearch(Tenants()), BrokerSettings(looks_per_second=1))
    asking = [asyncio.create_task(looks.answer("servers", b"{}")) for _ in range(50)]
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert done
    assert len(waiting) > 25
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_answer_is_bounded(folder: Path) -> None:
    long = [dataclasses.replace(tool, doc="x" * 20_000) for tool in tools_of("wordy", 60)]
    async with door(folder, Tenants(a=with_more(long)), look_mb=1) as path:
        with pytest.raises(NotFound, match="the most is 1,048,576"):
            await asked(path, "pyi", "wordy")
        assert len((await asked(path, "server", "wordy")).names) == 60


async def test_where_nobody_answers_it_is_said(folder: Path) -> None:
    with pytest.raises(NoBroker):
        await asked(folder / "none.sock", "servers")


CELL = """
import gc, sys
sys.path.append(sys.argv[1])
from sandbox import tool_index
from sandbox.stubs import install
install(sys.argv[2], sys.argv[3])
known = lambda: sum(type(o) is tool_index.Tool for o in gc.get_objects() if gc.is_tracked(o))
before = known()
import servers
servers.search("do thing 7 of s0042", 1)
servers.search("delete an order", 3)
from servers.s0042 import do_7
help(do_7)
try:
    from servers.s0042 import do_8888
except ImportError as error:
    print(error)
try:
    import servers.s9999
except ImportError as error:
    print(error)
servers.describe("s0042.do_3")
print(sorted(m for m in sys.modules if m.startswith("servers")), known() - before)
shop = dir(servers.woocommerce)
print(len(servers.s0042.__all__), "delete_order" in shop, "lookup_order" in shop)
folder = servers.folder("s0042", "woocommerce")
print(sorted(p.name for p in folder.iterdir()), "def do_7" in (folder / "s0042.pyi").read_text())
"""


async def test_a_kernel_loads_what_it_uses_of_ten_thousand_tools(folder: Path) -> None:
    many = with_more([tool for i in range(200) for tool in tools_of(f"s{i:04}", 50)])
    assert len(many.names) > 10_000
    (folder / "tools.json").write_bytes(BUILT_IN.index())
    sandbox = Path(__file__).parents[2] / "kernel_pool"
    async with door(folder, Tenants(a=many)) as path:
        arguments = [str(sandbox), str(folder / "tools.json"), str(path)]
        kernel = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CELL, *arguments, stdout=asyncio.subprocess.PIPE, cwd=folder
        )
        output, _ = await kernel.communicate()
    lines = output.decode().splitlines()
    assert lines[0] == 's0042.do_7(*, thing_id, reason="") -> dict  [write] Do thing 7 of s0042.'
    assert "delete_order" not in "".join(lines[1:4])
    assert "do_7(*, thing_id: int, reason: str = '') -> dict" in "\n".join(lines)
    assert any(line.startswith("servers.s0042 has no tool 'do_8888'. Did you mean do_8") for line in lines)
    assert any(line.startswith("There is no servers.s9999.") for line in lines)
    assert "[write] Do thing 3 of s0042." in lines
    # one tool of ten thousand was made, and the modules of the two servers that were named
    assert "['servers', 'servers.s0042'] 1" in lines
    assert "50 False True" in lines
    assert lines[-1] == "['README.txt', 's0042.pyi', 'woocommerce.pyi'] True"
