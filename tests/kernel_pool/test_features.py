"""What cells of a forked kernel can do in the full sandbox: all that they can in a stock one; docs/kernel-features.md.

Set KERNEL_TEST_PLACES to try it in containers.
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from attack import error, output
from places import KINDS, place_factory
from pools import pool_config

from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")

Run = Callable[[str], Awaitable[CellResult]]
_PRELOAD = ("numpy", "pandas", "pyarrow")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def feature_pool(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    place, kind = request.param
    with tempfile.TemporaryDirectory(prefix="okp-") as folder:
        config = pool_config(
            Path(folder) / "run", kernel=kind, preload=_PRELOAD, minimum=1, maximum=2, limits=Limits(memory_mb=768)
        )
        pool = Pool(config, place_factory(request, place))
        await pool.start()
        yield pool
        await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def held(feature_pool: Pool) -> AsyncIterator[list[Kernel]]:
    kernels: list[Kernel] = []
    yield kernels
    for kernel in kernels:
        await feature_pool.release(kernel)


@pytest_asyncio.fixture(loop_scope="module")
async def kernel(feature_pool: Pool, held: list[Kernel]) -> Kernel:
    """One for all tests, as a session is for all its cells; when it has ended, another."""
    if held and held[0].exited.done():
        await feature_pool.release(held.pop())
    if not held:
        held.append(await feature_pool.lease())
    return held[0]


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(feature_pool: Pool) -> AsyncIterator[Kernel]:
    kernel = await feature_pool.lease()
    yield kernel
    await feature_pool.release(kernel)


@pytest.fixture
def run(kernel: Kernel) -> Run:
    return lambda code: kernel.execute(code, deadline_s=60)


async def interrupted(kernel: Kernel, code: str) -> CellResult:
    """Run a cell and interrupt it after its first output."""
    begun = asyncio.Event()
    cell = asyncio.create_task(kernel.execute(code, deadline_s=60, on_output=lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 30)
    await asyncio.sleep(0.2)
    await kernel.interrupt()
    return await cell


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param("%timeit -n2 -r2 sum(range(10))", "2 runs", id="timeit"),
        pytest.param("%%time\nsum(range(10))", "Wall time", id="time"),
        pytest.param("%%bash\nfor i in 1 2; do echo line $i; done", "line 1\nline 2", id="bash"),
        pytest.param("%%writefile a.py\nprint('a', __name__)\n", "Writing a.py", id="writefile"),
        pytest.param("_ = open('r.py', 'w').write('z = 5')\n%run r.py\nz", "5", id="run"),
        pytest.param("%%capture out\nprint('kept')\n", "", id="capture"),
        pytest.param("import asyncio\nawait asyncio.sleep(0.01, 'awaited')", "'awaited'", id="await"),
        pytest.param("async def g():\n    yield 1\n[x async for x in g()]", "[1]", id="async-for"),
        pytest.param("import os; os.system('echo from system'); None", "from system", id="os.system"),
        pytest.param(
            "import ctypes; ctypes.CDLL(None).printf(b'from C\\n'); None",
            "from C",
            id="printf",
            marks=pytest.mark.forked_only,
        ),
        pytest.param(
            "import subprocess; subprocess.run(['sh', '-c', 'echo out; echo err >&2']); None", "err", id="run"
        ),
        pytest.param(
            "import multiprocessing as m\nwith m.Pool(2) as p: print(p.map(abs, [-1, -2, -3]))",
            "[1, 2, 3]",
            id="multiprocessing",
        ),
        pytest.param(
            "from concurrent.futures import ThreadPoolExecutor as T\nwith T(2) as t: print(list(t.map(abs, [-1, -2])))",
            "[1, 2]",
            id="thread-pool",
        ),
        pytest.param("import duckdb\nduckdb.sql('select 40 + 2 as answer').df().answer[0].item()", "42", id="duckdb"),
        pytest.param(
            "import duckdb, pandas as pd\nframe = pd.DataFrame({'a': [1, 2]})\n"
            "duckdb.sql('select sum(a) from frame').fetchall()[0][0] == 3",
            "True",
            id="duckdb-on-a-frame",
        ),
        pytest.param(
            "import pyarrow as pa, pyarrow.compute as pc\npc.sum(pa.array([1, 2, 3])).as_py()", "6", id="pyarrow"
        ),
        pytest.param(
            "import pyarrow as pa, pyarrow.parquet as pq\npq.write_table(pa.table({'a': [7]}), 'a.parquet')\n"
            "pq.read_table('a.parquet')['a'][0].as_py()",
            "7",
            id="parquet",
        ),
        pytest.param("import sqlite3; sqlite3.connect('x.db').execute('select 3').fetchone()", "(3,)", id="sqlite"),
    ],
)
async def test_a_cell_says(run: Run, code: str, said: str) -> None:
    result = await run(code)
    assert result.status == "ok", (result.reason, result.error)
    assert said in output(result)


async def test_calls_at_any_depth_ask_the_system_for_no_memory(run: Run) -> None:
    """gVisor counts no faults; there a first completion takes too long for its test without room for frames."""
    code = """
import resource
leaf = eval(f"lambda {', '.join(f'a{i}=0' for i in range(40))}: 0")
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(300):
        leaf()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def most(depth):
    return max(faults(), most(depth - 1) if depth else 0)
most(300) < 100"""
    assert output(await run(code)) == "True"


async def test_capture_keeps_what_a_cell_prints(run: Run) -> None:
    await run("%%capture out\nprint('kept')\nimport os; os.system('echo also')")
    assert output(await run("print(out.stdout, end='')")).startswith("kept")


async def test_autoreload_takes_a_changed_module(run: Run) -> None:
    await run("%load_ext autoreload\n%autoreload 2\nopen('m.py', 'w').write('def f(): return 1')\nimport m; m.f()")
    await run("import os\nopen('m.py', 'w').write('def f(): return 222')\nos.utime('m.py', (1, 2**31))")
    assert output(await run("m.f()")) == "222"


async def test_matplotlib_shows_figures_as_png(run: Run) -> None:
    result = await run("%matplotlib inline\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 3, 2])")
    (figure,) = [o for o in result.outputs if o["output_type"] == "display_data"]
    assert base64.b64decode(figure["data"]["image/png"]).startswith(b"\x89PNG")


async def test_a_frame_is_shown_as_html(run: Run) -> None:
    result = await run("import pandas as pd\npd.DataFrame({'a': [1]})")
    assert "<table" in result.outputs[-1]["data"]["text/html"]


async def test_displays_of_every_kind(run: Run) -> None:
    result = await run(
        "from IPython.display import HTML, JSON, Image, Markdown, SVG\nimport base64\n"
        "png = base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhg'\n"
        "    'GAWjR9awAAAABJRU5ErkJggg==')\n"
        "display(HTML('<b>h</b>'), JSON({'a': 1}), Image(png), Markdown('*m*'), SVG('<svg/>'))"
    )
    kinds = [set(o["data"]) - {"text/plain"} for o in result.outputs]
    assert kinds == [{"text/html"}, {"application/json"}, {"image/png"}, {"text/markdown"}, {"image/svg+xml"}]


async def test_an_update_changes_what_an_earlier_cell_showed(run: Run, kernel: Kernel) -> None:
    await run("handle = display('first', display_id='d')")
    updates: list[object] = []
    unsubscribe = kernel.channels.subscribe(
        lambda m: updates.append(m.content["data"]) if m.header["msg_type"] == "update_display_data" else None
    )
    await run("handle.update('second')")
    unsubscribe()
    assert updates == [{"text/plain": "'second'"}]


async def test_clear_output_drops_what_was_shown(run: Run) -> None:
    assert output(await run("from IPython.display import clear_output\nprint('a'); clear_output(); print('b')")) == "b"


async def test_an_error_has_a_traceback_with_the_line_in_colour(run: Run) -> None:
    result = await run("def f(x):\n    return 1 / x\nf(0)")
    assert result.error is not None
    text = "\n".join(result.error.traceback)
    assert "ZeroDivisionError" in text
    assert "return" in text
    assert "\x1b[" in text


async def test_an_exception_in_a_thread_is_shown(run: Run) -> None:
    result = await run("import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join()")
    assert "ZeroDivisionError" in output(result)


@pytest.mark.forked_only
async def test_a_thread_writes_to_the_cell_that_started_it(run: Run, kernel: Kernel) -> None:
    parents: dict[str, str] = {}
    late = asyncio.Event()

    def watch(message: object) -> None:
        content, parent = message.content, message.parent_header  # type: ignore[attr-defined]
        if "late" in content.get("text", ""):
            parents["late"] = parent["msg_id"]
            late.set()

    code = "import threading\ngo = threading.Event()\n"
    code += "threading.Thread(target=lambda: (go.wait(), print('late', flush=True))).start()"
    unsubscribe = kernel.channels.subscribe(watch)
    await kernel.execute(code, deadline_s=60, msg_id="the-first")
    await kernel.execute("go.set()", deadline_s=60, msg_id="the-second")
    await asyncio.wait_for(late.wait(), 30)
    unsubscribe()
    assert parents == {"late": "the-first"}


async def test_a_pools_thread_writes_to_the_cell_that_runs(run: Run) -> None:
    await run(
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\npool.submit(int).result()"
    )
    assert output(await run("pool.submit(print, 'now').result()")) == "now"


async def test_faulthandler_writes_into_the_cell(fresh: Kernel) -> None:
    code = "import faulthandler\nfaulthandler.enable()\nfaulthandler.dump_traceback(file=2)"
    result = await fresh.execute(code, deadline_s=60)
    assert "most recent call first" in output(result)


async def test_a_task_goes_on_between_cells(run: Run) -> None:
    await run(
        "import asyncio\nasync def f():\n    await asyncio.sleep(0.05)\n    return 9\ntask = asyncio.create_task(f())"
    )
    await asyncio.sleep(0.2)
    assert output(await run("task.result()")) == "9"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import time; print('on', flush=True); time.sleep(50)", id="sleep"),
        pytest.param(
            "import asyncio; print('on', flush=True); await asyncio.sleep(50)",
            id="await",
            marks=pytest.mark.forked_only,
        ),
        pytest.param(
            "import asyncio; print('on', flush=True); await asyncio.Event().wait()",
            id="await-event",
            marks=pytest.mark.forked_only,
        ),
        pytest.param("print('on', flush=True)\nwhile True: pass", id="loop"),
        pytest.param(
            "import subprocess; print('on', flush=True); subprocess.run(['sleep', '50'])",
            id="subprocess",
            marks=pytest.mark.forked_only,
        ),
        pytest.param("print('on', flush=True)\n!sleep 50", id="shell", marks=pytest.mark.forked_only),
        pytest.param(
            "import numpy as np; a = np.random.rand(400, 400); print('on', flush=True)\nwhile True: a @ a", id="numpy"
        ),
        pytest.param("import threading; print('on', flush=True); threading.Event().wait()", id="lock"),
    ],
)
async def test_an_interrupt_stops_a_cell_and_keeps_its_state(kernel: Kernel, run: Run, code: str) -> None:
    await run("kept = 'kept'")
    result = await interrupted(kernel, code)
    assert (result.status, result.state_lost) == ("interrupted", False)
    assert output(await run("kept")) == "'kept'"


async def test_an_interrupt_can_be_caught(kernel: Kernel) -> None:
    code = "import time\nprint('on', flush=True)\ntry: time.sleep(50)\nexcept KeyboardInterrupt: print('caught')"
    result = await interrupted(kernel, code)
    assert (result.status, output(result)) == ("ok", "on\ncaught")


async def test_exit_ends_the_kernel(kernel: Kernel, run: Run) -> None:
    await run("exit()")
    assert (await asyncio.wait_for(asyncio.shield(kernel.exited), 30)).detail


async def test_a_large_output_comes_whole(run: Run) -> None:
    result = await run("print('x' * 4_000_000)")
    assert len(output(result)) == 4_000_000


async def test_input_is_asked_for_and_answered(kernel: Kernel) -> None:
    asked: list[tuple[str, bool]] = []

    async def ask(prompt: str, secret: bool) -> str:
        asked.append((prompt, secret))
        return f"answer {len(asked)}"

    code = "import getpass\n[input('who? '), getpass.getpass('key? ')]"
    result = await kernel.execute(code, deadline_s=60, ask=ask)
    assert output(result) == "['answer 1', 'answer 2']"
    assert asked == [("who? ", False), ("key? ", True)]


async def test_input_without_anybody_to_answer_is_an_error_in_words(run: Run) -> None:
    for code in ("input('who? ')", "import getpass; getpass.getpass()"):
        said = error(await run(code))
        assert said.startswith("StdinNotImplementedError")
        assert "does not support input requests" in said


async def test_a_cell_that_waits_for_input_can_be_interrupted(kernel: Kernel, run: Run) -> None:
    asked = asyncio.Event()

    async def never(prompt: str, secret: bool) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    cell = asyncio.create_task(kernel.execute("input()", deadline_s=60, ask=never))
    await asyncio.wait_for(asked.wait(), 30)
    await kernel.interrupt()
    assert (await cell).status == "interrupted"
    assert output(await run("1 + 1")) == "2"


async def test_completion_knows_what_a_cell_made(kernel: Kernel, run: Run) -> None:
    await run("import pandas as pd\nclass Thing:\n    shiny = 1\nthing = Thing()\nd = {'key_one': 1}")
    for code, wanted in (
        ("thing.sh", "shiny"),
        ("pd.DataFr", "DataFrame"),
        ("import jso", "json"),
        ("%timei", "%timeit"),
    ):
        content = {"code": code, "cursor_pos": len(code)}
        reply = await kernel.channels.request("shell", "complete_request", content)
        assert any(wanted in match for match in reply.content["matches"]), (code, reply.content["matches"][:5])


async def test_inspection_shows_signature_docstring_and_source(kernel: Kernel, run: Run) -> None:
    await run('def double(x: int) -> int:\n    """Twice x."""\n    return x * 2')
    content = {"code": "double", "cursor_pos": 4, "detail_level": 1}
    reply = await kernel.channels.request("shell", "inspect_request", content)
    text = reply.content["data"]["text/plain"]
    assert all(part in text for part in ("x", "Twice x.", "return"))


async def test_history_has_the_cells(kernel: Kernel, run: Run) -> None:
    await run("first = 1")
    await run("second = 2")
    content = {"hist_access_type": "tail", "n": 2, "raw": True, "output": False}
    reply = await kernel.channels.request("shell", "history_request", content)
    assert [line for _, _, line in reply.content["history"]] == ["first = 1", "second = 2"]


async def test_completion_and_plots_write_nothing_outside_of_home_and_tmp(kernel: Kernel, run: Run) -> None:
    content = {"code": "import json; json.du", "cursor_pos": 20}
    await kernel.channels.request("shell", "complete_request", content)
    code = """
import os, jedi
where = [os.path.realpath(p) for p in (jedi.settings.cache_directory, os.path.expanduser('~'))]
print(all(p.startswith(('/home/kernel', '/tmp', '/opt/omniops/cache')) for p in where))"""
    assert output(await run(code)) == "True"
