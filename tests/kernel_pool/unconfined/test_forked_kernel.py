"""What a forked kernel does is what a stock ipykernel does, or better."""

from __future__ import annotations

import asyncio

import pytest
import zmq
import zmq.asyncio
from plain_kernels import PlainKernel, PlainTemplate, plain_kernel, streams_of, text_of

from kernel_pool.types import Message


async def test_value_of_the_last_expression_is_the_result(kernel: PlainKernel) -> None:
    result = await kernel.run("x = 20\nx + 1")
    assert result.outputs == (
        {"output_type": "execute_result", "execution_count": 1, "data": {"text/plain": "21"}, "metadata": {}},
    )


async def test_state_stays_from_cell_to_cell(kernel: PlainKernel) -> None:
    await kernel.run("x = [1]")
    assert await kernel.text("x.append(2); x") == "[1, 2]"


async def test_an_error_is_shown_and_returned(kernel: PlainKernel) -> None:
    result = await kernel.run("1 / 0")
    assert (result.status, result.error and result.error.name) == ("error", "ZeroDivisionError")
    assert result.outputs[0]["ename"] == "ZeroDivisionError"


async def test_first_cell_finds_a_clean_namespace(kernel: PlainKernel) -> None:
    names = await kernel.text("sorted(n for n in globals() if not n.startswith('_'))")
    assert names == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']"


async def test_in_out_and_underscores_hold_what_was(kernel: PlainKernel) -> None:
    await kernel.run("40 + 2")
    assert await kernel.text("In[1], Out[1], _, _1") == "('40 + 2', 42, 42, 42)"


async def test_history_is_kept(kernel: PlainKernel) -> None:
    await kernel.run("a = 1")
    await kernel.run("b = 2")
    assert await kernel.text("%history 1-2") == "a = 1\nb = 2\n"
    reply = await kernel.channels.request(
        "shell",
        "history_request",
        {"hist_access_type": "search", "pattern": "b*", "output": False, "raw": True, "n": 9},
    )
    assert [entry[2] for entry in reply.content["history"]] == ["b = 2"]


async def test_c_code_os_system_and_subprocesses_write_into_their_cell(kernel: PlainKernel) -> None:
    code = """
import ctypes, os, subprocess
ctypes.CDLL(None).printf(b"from C\\n")
os.system("echo from the shell; echo wrong >&2")
subprocess.run(["echo", "from a program"])
None"""
    written = streams_of(await kernel.run(code))
    assert written["stderr"] == "wrong\n"
    assert sorted(written["stdout"].splitlines()) == ["from C", "from a program", "from the shell"]


async def test_what_a_program_wrote_comes_before_the_value_that_follows(kernel: PlainKernel) -> None:
    result = await kernel.run("import os; os.system('echo first')")
    assert [o["output_type"] for o in result.outputs] == ["stream", "execute_result"]


async def test_a_forked_child_prints_into_the_cell(kernel: PlainKernel) -> None:
    code = """
import multiprocessing
fork = multiprocessing.get_context("fork")
with fork.Pool(2) as pool: print(pool.map(abs, [-1, -2]))
child = fork.Process(target=lambda: print("from the child"))
child.start(); child.join()"""
    assert set((await kernel.text(code)).splitlines()) == {"[1, 2]", "from the child"}


async def test_a_cell_that_forks_goes_on_in_the_parent_only(kernel: PlainKernel) -> None:
    code = """
import os, sys
child = os.fork()
if child == 0: print("child"); display("unseen")
else: os.waitpid(child, 0); sys.stdout.flush(); print("parent")  # the flush takes in what the child has written"""
    written = streams_of(await kernel.run(code))
    assert written["stdout"].splitlines() == ["child", "parent"]
    assert written["stderr"] == "[display_data of a forked process is not shown; print it]\n"
    assert await kernel.text("1 + 1") == "2"


async def test_a_thread_prints_into_the_cell(kernel: PlainKernel) -> None:
    code = "import threading\nt = threading.Thread(target=print, args=('from a thread',))\nt.start(); t.join()"
    assert await kernel.text(code) == "from a thread\n"


async def test_text_arrives_while_the_cell_still_runs(kernel: PlainKernel) -> None:
    seen = asyncio.Event()
    running = asyncio.create_task(
        kernel.run("print('soon')\nwhile True: __import__('time').sleep(0.01)", on_output=lambda _: seen.set())
    )
    await asyncio.wait_for(seen.wait(), 20)
    assert not running.done()
    await kernel.channels.interrupt()
    await running


async def test_top_level_await(kernel: PlainKernel) -> None:
    assert await kernel.text("import asyncio\nawait asyncio.sleep(0, 'slept')") == "'slept'"


async def test_a_background_task_goes_on_between_cells(kernel: PlainKernel) -> None:
    await kernel.run("import asyncio\ndone = asyncio.Event()\ntask = asyncio.create_task(asyncio.sleep(0.01))")
    await asyncio.sleep(0.1)
    assert await kernel.text("task.done()") == "True"


async def test_context_variables_stay_from_cell_to_cell(kernel: PlainKernel) -> None:
    await kernel.run("import contextvars\nv = contextvars.ContextVar('v')\n_ = v.set('kept')")
    assert await kernel.text("v.get()") == "'kept'"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("!echo shell", "shell\n"),
        ("lines = !printf 'a\\nb'\nlines", "['a', 'b']"),
        ("%%bash\necho bash", "bash\n"),
        ("%pwd", None),
        ("%timeit -n1 -r1 pass", None),
        ("x = 5\n%store x", "Stored 'x' (int)\n"),
        ("%%python3\nprint(3)", "3\n"),
        ("%%writefile made.py\nX = 5", "Writing made.py\n"),
    ],
)
async def test_magics(kernel: PlainKernel, code: str, text: str | None) -> None:
    got = await kernel.text(code)
    assert got == text if text is not None else got


async def test_a_module_that_a_cell_wrote_can_be_imported(kernel: PlainKernel) -> None:
    await kernel.run("%%writefile made.py\nX = 5")
    assert await kernel.text("import made\nmade.X") == "5"


async def test_completion_and_inspection(kernel: PlainKernel) -> None:
    await kernel.run("def lookup_order(order_id):\n    'Find an order.'")
    complete = await kernel.channels.request("shell", "complete_request", {"code": "look", "cursor_pos": 4})
    assert complete.content["matches"] == ["lookup_order"]
    inspect = await kernel.channels.request(
        "shell", "inspect_request", {"code": "lookup_order", "cursor_pos": 5, "detail_level": 0}
    )
    assert "Find an order." in inspect.content["data"]["text/plain"]


async def test_displays_update_in_place(kernel: PlainKernel) -> None:
    code = "h = display('one', display_id=True)\nprint('between')\nh.update('two')"
    assert text_of(await kernel.run(code)) == "'two'between\n"


async def test_clear_output_waits_for_the_next_output(kernel: PlainKernel) -> None:
    code = "from IPython.display import clear_output\nprint('old')\nclear_output(wait=True)\n{}"
    assert await kernel.text(code.format("")) == "old\n"
    assert await kernel.text(code.format("print('new')")) == "new\n"


async def test_dataframes_have_text_and_html(kernel: PlainKernel) -> None:
    result = await kernel.run("import pandas as pd\npd.DataFrame({'a': [1]})")
    assert set(result.outputs[0]["data"]) == {"text/plain", "text/html"}


async def test_a_printer_registered_for_a_plain_type_is_used(kernel: PlainKernel) -> None:
    await kernel.run(
        "f = get_ipython().display_formatter.formatters\nf['text/html'].for_type(int, lambda n: f'<b>{n}</b>')"
    )
    result = await kernel.run("7")
    assert result.outputs[0]["data"] == {"text/plain": "7", "text/html": "<b>7</b>"}
    await kernel.run("f['text/plain'].for_type(int, lambda n, p, cycle: p.text('seven'))")
    assert (await kernel.run("7")).outputs[0]["data"]["text/plain"] == "seven"


async def test_comms_reach_a_cell_that_awaits_them(kernel: PlainKernel) -> None:
    setup = """
import asyncio
from comm import get_comm_manager
heard = asyncio.Event()
def target(comm, message):
    @comm.on_msg
    def _(m):
        comm.send({"echo": m["content"]["data"]})
        heard.set()
get_comm_manager().register_target("t", target)"""
    await kernel.run(setup)
    await kernel.collect("comm_open", {"comm_id": "c", "target_name": "t", "data": {}})
    waiting = asyncio.create_task(kernel.run("await heard.wait()"))
    echoed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    unsubscribe = kernel.channels.subscribe(
        lambda m: echoed.set_result(m.content["data"]) if m.header["msg_type"] == "comm_msg" else None
    )
    await asyncio.sleep(0.1)
    kernel.channels.send("shell", "comm_msg", {"comm_id": "c", "data": 5})
    assert await asyncio.wait_for(echoed, 20) == {"echo": 5}
    unsubscribe()
    assert text_of(await waiting) == "True"


async def test_a_client_that_allows_it_is_asked_for_input(kernel: PlainKernel) -> None:
    asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    kernel.channels.subscribe(
        lambda m: asked.set_result(m.content["prompt"]) if m.header["msg_type"] == "input_request" else None
    )
    request = {"code": "name = input('who? ')", "allow_stdin": True, "silent": False, "store_history": True}
    cell = asyncio.create_task(kernel.collect("execute_request", request))
    assert await asyncio.wait_for(asked, 20) == "who? "
    kernel.channels.send("stdin", "input_reply", {"value": "Ada"})
    await cell
    assert await kernel.text("name") == "'Ada'"


async def test_input_is_refused_where_nobody_can_answer(kernel: PlainKernel) -> None:
    result = await kernel.run("input()")
    assert result.error is not None
    assert result.error.name == "StdinNotImplementedError"


async def test_cells_queued_behind_a_failing_one_are_aborted(kernel: PlainKernel) -> None:
    first, second = await asyncio.gather(kernel.run("import time; time.sleep(0.2); 1 / 0"), kernel.run("ran = True"))
    assert (first.status, second.status) == ("error", "error")
    assert second.reason == "not run, because a cell before it failed"
    assert await kernel.text("'ran' in globals()") == "False"


async def test_random_state_differs_between_forks(template: PlainTemplate) -> None:
    code = """
import random, tempfile, uuid, ssl
import numpy as np
generator = np.random.default_rng()
[random.random(), np.random.rand(), uuid.uuid4(), tempfile.mktemp(), ssl.RAND_bytes(4), generator.random()]"""
    async with plain_kernel(template) as one, plain_kernel(template) as other:
        await one.run(code)
        await other.run(code)
        values = [await k.text("for v in _: print(v)") for k in (one, other)]
    pairs = list(zip(*(v.splitlines() for v in values), strict=True))
    assert len(pairs) == 6
    assert all(a != b for a, b in pairs)


async def test_environment_is_the_kernels_own(kernel: PlainKernel) -> None:
    result = await kernel.run(
        "import os\n'SECRET' in os.environ, os.environ['MPLBACKEND'], os.environ['HOME'] == os.getcwd()"
    )
    assert text_of(result) == "(False, 'module://matplotlib_inline.backend_inline', True)"
    assert "of the template" not in await kernel.text("!env")


async def test_heart_beats_while_a_cell_computes(kernel: PlainKernel) -> None:
    busy = asyncio.create_task(kernel.run("while True: pass"))
    context = zmq.asyncio.Context()
    heart = context.socket(zmq.REQ)
    heart.linger = 0
    heart.connect(f"ipc://{kernel.folder}/hb")
    await heart.send(b"ping")
    assert await asyncio.wait_for(heart.recv(), 20) == b"ping"
    context.destroy()
    await kernel.channels.interrupt()
    await busy


async def test_exit_ends_the_kernel(kernel: PlainKernel) -> None:
    await kernel.run("import atexit, pathlib\natexit.register(pathlib.Path('left').touch)")
    await kernel.run("exit()")
    await asyncio.wait_for(asyncio.shield(kernel.exited), 20)
    assert (kernel.folder / "home" / "left").exists()


async def test_shutdown_is_answered_before_the_kernel_ends(kernel: PlainKernel) -> None:
    reply = await kernel.channels.request("control", "shutdown_request", {"restart": False})
    assert reply.content["status"] == "ok"
    await asyncio.wait_for(asyncio.shield(kernel.exited), 20)


async def test_a_lone_surrogate_is_printed_escaped(kernel: PlainKernel) -> None:
    assert await kernel.text("print('half a \\ud83d pair')") == "half a \\ud83d pair\n"


async def test_what_json_cannot_hold_is_shown_all_the_same(kernel: PlainKernel) -> None:
    bundle = "{'application/json': {'n': float('nan'), 'big': 10**30, '\\ud800': {1, 2}}}"
    result = await kernel.run(f"display({bundle}, raw=True)")
    assert result.outputs[0]["data"] == {"application/json": {"n": None, "big": 1e30, "\\ud800": [1, 2]}}


async def test_json_nested_too_deep_is_left_out(kernel: PlainKernel) -> None:
    show = "display({'application/json': deep, 'text/plain': 'x'}, raw=True)"
    for levels in (150, 300, 100_000):
        result = await kernel.run(f"deep = []\nfor _ in range({levels}): deep = [deep]\n{show}")
        assert result.outputs[0]["data"] == {"text/plain": "x"}


async def test_no_output_is_lost_however_many_there_are(kernel: PlainKernel) -> None:
    result = await kernel.run("for i in range(3000): display(i)")
    assert [o["data"]["text/plain"] for o in result.outputs] == [str(i) for i in range(3000)]


async def test_a_display_too_large_for_a_message_says_so(kernel: PlainKernel) -> None:
    result = await kernel.run("display({'text/html': 'x' * 20_000_000}, raw=True)")
    assert "not shown" in text_of(result)


async def test_user_expressions_give_text(kernel: PlainKernel) -> None:
    result = await kernel.run("a = 2", user_expressions={"six": "a * 3", "bad": "1 / 0"})
    assert result.user_expressions == {"six": "6"}


async def test_output_of_a_cell_written_after_it_ended_belongs_to_it(kernel: PlainKernel) -> None:
    late: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    kernel.channels.subscribe(
        lambda m: late.set_result(m.content["text"]) if m.header["msg_type"] == "stream" else None
    )
    await kernel.run("import threading\nthreading.Timer(0.2, print, ('late',)).start()")
    assert await asyncio.wait_for(late, 20) == "late\n"


@pytest.mark.parametrize("what", ["create", "delete", "list"])
async def test_subshells_are_refused_in_words(kernel: PlainKernel, what: str) -> None:
    reply = await kernel.channels.request("control", f"{what}_subshell_request", {"subshell_id": "x"})
    assert reply.header["msg_type"] == f"{what}_subshell_reply"
    assert (reply.content["status"], reply.content["ename"]) == ("error", "NotImplementedError")
    assert 'kernel = "stock"' in reply.content["evalue"]


async def test_a_cell_for_a_subshell_is_refused_and_not_run(kernel: PlainKernel) -> None:
    replied: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    unsubscribe = kernel.channels.subscribe(
        lambda m: replied.set_result(m) if m.header["msg_type"] == "execute_reply" else None
    )
    kernel.channels.send("shell", "execute_request", {"code": "ran = 1"}, subshell_id="x")
    assert "no subshells" in (await asyncio.wait_for(replied, 20)).content["evalue"]
    unsubscribe()
    assert await kernel.text("'ran' in globals()") == "False"


async def test_the_debugger_is_refused_in_words_and_not_offered(kernel: PlainKernel) -> None:
    request = {"type": "request", "seq": 7, "command": "initialize", "arguments": {}}
    reply = await kernel.channels.request("control", "debug_request", request)
    assert (reply.content["success"], reply.content["request_seq"]) == (False, 7)
    assert 'kernel = "stock"' in reply.content["message"]
    info = await kernel.channels.request("shell", "kernel_info_request", {})
    assert info.content["supported_features"] == []
