"""Comms and what stands on them, ipywidgets, on a forked kernel in the full sandbox, with the test as the front end."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from attack import output
from places import KINDS, place_factory
from pools import pool_config

from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, Limits, Message

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def comm_pool(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    place, kind = request.param
    with tempfile.TemporaryDirectory(prefix="okp-") as folder:
        config = pool_config(Path(folder) / "run", kernel=kind, minimum=1, limits=Limits(memory_mb=512))
        pool = Pool(config, place_factory(request, place))
        await pool.start()
        yield pool
        await pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def kernel(comm_pool: Pool) -> AsyncIterator[Kernel]:
    kernel = await comm_pool.lease()
    yield kernel
    await comm_pool.release(kernel)


class FrontEnd:
    """Follows a kernel's comms: their state by id, and everything that came."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.messages: list[Message] = []
        self.state: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Event()

    def take(self, message: Message) -> None:
        if not message.header["msg_type"].startswith("comm_"):
            return
        self.messages.append(message)
        content = message.content
        data = content["data"]
        if isinstance(data, dict) and data.get("method", "update") in ("update", "echo_update"):
            self.state.setdefault(content["comm_id"], {}).update(data.get("state", {}))
        self._changed.set()

    async def until(self, ready: Callable[[], Any]) -> Any:
        """Wait until `ready` gives something that is true, and return that."""
        async with asyncio.timeout(30):
            while not (found := ready()):
                self._changed.clear()
                await self._changed.wait()
        return found

    def send(self, msg_type: str, content: Mapping[str, Any], *buffers: bytes) -> None:
        self.kernel.channels.send("shell", msg_type, content, buffers=buffers)

    def set(self, model: str, **state: Any) -> None:
        """What a front end sends when somebody moves a control."""
        data = {"method": "update", "state": state, "buffer_paths": []}
        self.send("comm_msg", {"comm_id": model, "data": data})

    def model(self, name: str) -> str:
        """The id of the first model of this kind; "" if there is none yet."""
        return next((id for id, state in self.state.items() if state.get("_model_name") == name), "")

    def of(self, msg_type: str) -> list[Message]:
        return [message for message in self.messages if message.header["msg_type"] == msg_type]


@contextlib.contextmanager
def front_end(kernel: Kernel) -> Iterator[FrontEnd]:
    front = FrontEnd(kernel)
    unsubscribe = kernel.channels.subscribe(front.take)
    yield front
    unsubscribe()


async def ok(kernel: Kernel, code: str) -> CellResult:
    result = await kernel.execute(code, deadline_s=60)
    assert result.status == "ok", (result.reason, result.error)
    return result


async def test_a_comm_that_the_kernel_opens(kernel: Kernel) -> None:
    with front_end(kernel) as front:
        await ok(kernel, "from comm import create_comm\nheard = []\nc = create_comm('t', data={'a': 1})")
        (opened,) = front.of("comm_open")
        assert (opened.content["target_name"], opened.content["data"]) == ("t", {"a": 1})
        await ok(kernel, "c.on_msg(lambda m: heard.append(m['content']['data'])); c.send({'b': 2}, buffers=[b'raw'])")
        (sent,) = front.of("comm_msg")
        assert (sent.content["data"], sent.buffers) == ({"b": 2}, (b"raw",))
        front.send("comm_msg", {"comm_id": opened.content["comm_id"], "data": "back"})
        assert output(await ok(kernel, "heard")) == "['back']"
        await ok(kernel, "c.close({'bye': 1})")
        assert [m.content["data"] for m in front.of("comm_close")] == [{"bye": 1}]


async def test_a_comm_that_the_front_end_opens_with_binary_data_both_ways(kernel: Kernel) -> None:
    await ok(
        kernel,
        "from comm import get_comm_manager\nlog = []\n"
        "def target(comm, message):\n"
        "    log.append(('open', message['content']['data']))\n"
        "    comm.on_msg(lambda m: comm.send('echo', buffers=[bytes(b)[::-1] for b in m['buffers']]))\n"
        "    comm.on_close(lambda m: log.append(('close', m['content']['data'])))\n"
        "get_comm_manager().register_target('mine', target)",
    )
    with front_end(kernel) as front:
        front.send("comm_open", {"comm_id": "c1", "target_name": "mine", "data": 1})
        front.send("comm_msg", {"comm_id": "c1", "data": 2}, b"\x00\x01\x02")
        echo = (await front.until(lambda: front.of("comm_msg")))[0]
        assert echo.buffers == (b"\x02\x01\x00",)
        front.send("comm_close", {"comm_id": "c1", "data": 3})
        assert output(await ok(kernel, "log")) == "[('open', 1), ('close', 3)]"
        info = await kernel.channels.request("shell", "comm_info_request", {"target_name": "mine"})
        assert info.content["comms"] == {}


async def test_a_comm_for_nobody_is_closed(kernel: Kernel) -> None:
    with front_end(kernel) as front:
        front.send("comm_open", {"comm_id": "c2", "target_name": "nobody", "data": {}})
        closed = (await front.until(lambda: front.of("comm_close")))[0]
        assert closed.content["comm_id"] == "c2"


async def test_a_slider_goes_both_ways(kernel: Kernel) -> None:
    with front_end(kernel) as front:
        shown = await ok(kernel, "import ipywidgets as w\nslider = w.IntSlider(value=3, max=10)\nslider")
        view = shown.outputs[-1]["data"]["application/vnd.jupyter.widget-view+json"]
        slider = front.model("IntSliderModel")
        assert (view["model_id"], front.state[slider]["value"]) == (slider, 3)
        await ok(kernel, "seen = []\nslider.observe(lambda change: seen.append(change.new), 'value')")
        front.set(slider, value=7)
        assert output(await ok(kernel, "slider.value, seen")) == "(7, [7])"
        await ok(kernel, "slider.value = 9")
        assert front.state[slider]["value"] == 9


async def test_interact_runs_its_function_for_every_move(kernel: Kernel) -> None:
    with front_end(kernel) as front:
        await ok(kernel, "import ipywidgets as w\ngot = []\n_ = w.interact(lambda n: got.append(n), n=(0, 10))")
        front.set(front.model("IntSliderModel"), value=8)
        assert output(await ok(kernel, "got")) == "[5, 8]"


async def test_an_output_widget_takes_what_is_printed(kernel: Kernel) -> None:
    with front_end(kernel) as front:
        code = "import ipywidgets as w\nout = w.Output()\ndisplay(out)\nwith out: print('inside')\n"
        code += "out.append_stdout('more')"
        await kernel.execute(code, deadline_s=60, msg_id="the-cell")
        model = front.model("OutputModel")
        claims = [
            m.content["data"]["state"]["msg_id"]
            for m in front.of("comm_msg")
            if m.content["comm_id"] == model and "msg_id" in m.content["data"].get("state", {})
        ]
        # while the block runs, a front end puts what this cell prints into the widget
        assert claims == ["the-cell", ""]
        assert front.state[model]["outputs"][-1]["text"] == "more"


async def test_a_button_is_pressed_while_a_cell_waits(kernel: Kernel) -> None:
    with front_end(kernel) as front:
        code = "import asyncio, ipywidgets as w\npressed = asyncio.Event()\nbutton = w.Button(description='go')\n"
        code += "button.on_click(lambda b: pressed.set())\nprint('shown', flush=True)\nawait pressed.wait()"
        cell = asyncio.create_task(kernel.execute(code, deadline_s=60))
        button = await front.until(lambda: front.model("ButtonModel"))
        await asyncio.sleep(0.2)
        data = {"method": "custom", "content": {"event": "click"}}
        front.send("comm_msg", {"comm_id": button, "data": data})
        assert output(await cell) == "shown\nTrue"
