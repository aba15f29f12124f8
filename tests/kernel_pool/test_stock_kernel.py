"""The stock kernel in the sandbox: debugger and subshells work, and no network comes with the debugger's TCP."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from attack import PRELUDE, error, output
from places import PLACES_OF_USE, place_factory
from pools import pool_config

from kernel_pool.files import WorkFolder
from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.types import Message

pytestmark = pytest.mark.asyncio(loop_scope="module")

_sequence = count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PLACES_OF_USE)
async def stock_pool(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    with tempfile.TemporaryDirectory(prefix="okp-") as folder:
        pool = Pool(pool_config(Path(folder) / "run", kernel="stock"), place_factory(request, request.param))
        await pool.start()
        yield pool
        await pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def stock(stock_pool: Pool) -> AsyncIterator[Kernel]:
    kernel = await stock_pool.lease()
    yield kernel
    await stock_pool.release(kernel)


async def debug(kernel: Kernel, command: str, **arguments: Any) -> Mapping[str, Any]:
    """One request of the debug adapter protocol; the body of its answer."""
    request = {"type": "request", "seq": next(_sequence), "command": command, "arguments": arguments}
    async with asyncio.timeout(60):
        reply = await kernel.channels.request("control", "debug_request", request)
    assert reply.content["success"], reply.content
    return reply.content.get("body") or {}


async def test_its_work_folder_is_had_from_outside(stock: Kernel) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"from outside"

    folder = WorkFolder(stock, 30)
    await folder.write("in/file", pieces())
    assert output(await stock.execute("print(open('in/file').read())", deadline_s=30)) == "from outside"
    about = await folder.look("in/file")
    assert [piece async for piece in folder.read("in/file", about, 5, 7)] == [b"outside"]


async def test_a_cell_stops_at_a_breakpoint_and_shows_its_variables(stock: Kernel) -> None:
    stopped: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def watch(message: Message) -> None:
        if message.header["msg_type"] == "debug_event" and message.content["event"] == "stopped" and not stopped.done():
            stopped.set_result(message)

    unsubscribe = stock.channels.subscribe(watch)
    await debug(stock, "initialize", clientID="test", adapterID="", linesStartAt1=True, columnsStartAt1=True)
    await debug(stock, "attach")
    code = "def double(x):\n    y = x * 2\n    return y\ndouble(21)"
    path = (await debug(stock, "dumpCell", code=code))["sourcePath"]
    await debug(stock, "setBreakpoints", source={"path": path}, breakpoints=[{"line": 3}], sourceModified=False)
    await debug(stock, "configurationDone")
    cell = asyncio.create_task(stock.execute(code, deadline_s=60))
    thread = (await asyncio.wait_for(stopped, 60)).content["body"]["threadId"]
    unsubscribe()
    frame = (await debug(stock, "stackTrace", threadId=thread))["stackFrames"][0]
    assert (frame["name"], frame["line"]) == ("double", 3)
    scope = (await debug(stock, "scopes", frameId=frame["id"]))["scopes"][0]
    found = (await debug(stock, "variables", variablesReference=scope["variablesReference"]))["variables"]
    assert {v["name"]: v["value"] for v in found if v["name"] in "xy"} == {"x": "21", "y": "42"}
    await debug(stock, "continue", threadId=thread)
    assert output(await cell) == "42"
    await debug(stock, "disconnect", restart=False, terminateDebuggee=False)


async def test_a_subshell_answers_while_a_cell_computes(stock: Kernel) -> None:
    info = await stock.channels.request("shell", "kernel_info_request", {})
    assert {"debugger", "kernel subshells"} <= set(info.content["supported_features"])
    created = await stock.channels.request("control", "create_subshell_request", {})
    begun = asyncio.Event()
    code = "import time\nprint('on')\nwhile not globals().get('told'): time.sleep(0.01)\ntold"
    cell = asyncio.create_task(stock.execute(code, deadline_s=60, on_output=lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 30)
    request = {"code": "told = 'by the subshell'", "silent": False, "store_history": False}
    stock.channels.send("shell", "execute_request", request, subshell_id=created.content["subshell_id"])
    assert output(await cell) == "on\n'by the subshell'"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("socket.create_connection(('1.1.1.1', 53), timeout=5)", "Network is unreachable"),
        ("socket.create_connection(('169.254.169.254', 80), timeout=5)", "Network is unreachable"),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "Network is unreachable"),
        ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "Network is unreachable"),
        ("socket.socket(socket.AF_INET6, socket.SOCK_STREAM)", "Network is unreachable"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "Network is unreachable"),
        ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "Operation not supported"),
    ],
)
async def test_tcp_leads_nowhere_else(stock: Kernel, code: str, said: str) -> None:
    told = error(await stock.execute(f"import socket\n{code}", deadline_s=30))
    assert said in told.replace("No route to host", "Network is unreachable")  # gVisor's word for it


async def test_what_listens_on_the_host_or_in_another_kernel_is_not_there(stock_pool: Pool, stock: Kernel) -> None:
    other = await stock_pool.lease()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened = await other.execute(
            "import socket; s = socket.create_server(('127.0.0.1', 0)); s.getsockname()[1]", deadline_s=30
        )
        for port in (listener.getsockname()[1], int(output(opened))):
            result = await stock.execute(
                f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)", deadline_s=30
            )
            assert "Connection refused" in error(result)
    await stock_pool.release(other)


async def test_the_one_device_is_loopback_and_cannot_be_changed(stock: Kernel) -> None:
    names = await stock.execute(
        "[line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]", deadline_s=30
    )
    assert "lo" in output(names)
    assert "eth" not in output(names)
    code = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
    try: fcntl.ioctl(s, 0x8914, struct.pack('16sH22x', b'lo', 0))
    except OSError as error: print('refused')"""
    assert output(await stock.execute(code, deadline_s=30)) == "refused"


async def test_it_writes_nowhere_but_where_it_may(stock: Kernel) -> None:
    code = """
for path in ('/ipc/x', '/opt/x', '/x', '/usr/x', '/run/x'):
    print(attempt(open, path, 'w'))
print(call('unshare', 0x40000000), call('setuid', 0), attempt(open, '/proc/1/environ', 'r').__class__.__name__)"""
    await stock.execute(PRELUDE, deadline_s=30)
    lines = output(await stock.execute(code, deadline_s=30)).splitlines()
    assert set(lines[:5]) <= {"EROFS", "EACCES", "ENOENT"}
    assert lines[5].startswith("EPERM ")
