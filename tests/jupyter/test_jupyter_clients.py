"""Jupyter's own clients start sandboxed kernels by name, work in them, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pexpect
import pytest
from desk import Desk, below

#: A container takes its time, and the first test may have to wait for the image.
pytestmark = pytest.mark.timeout(600)

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
#: What a sandboxed kernel tells of itself, and a plain one does not.
_WHERE = "import os; print(os.getuid() != 0, os.getcwd())"
_INSIDE = "True /home/kernel"


def notebook(folder: Path, *cells: str, tags: tuple[str, ...] = ()) -> Path:
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_code_cell(code) for code in cells]
    if tags:
        node.cells[0].metadata["tags"] = list(tags)
    node.metadata["kernelspec"] = {"name": "sandboxed", "display_name": "x", "language": "python"}
    path = folder / "in.ipynb"
    nbformat.write(node, path)
    return path


def printed(path: Path) -> list[str]:
    node = nbformat.read(path, as_version=4)
    return ["".join(output.get("text", "") for output in cell.outputs).strip() for cell in node.cells]


def test_console(desk: Desk) -> None:
    """A person at a terminal: code, an interrupt, a way out.

    Without the Tab key: the console's own completer (6.6.3) never hears a reply beside jupyter_client 8.10, with a
    stock kernel neither. What a kernel completes is asked for by another client below.
    """
    arguments = ["-m", "jupyter_console", "--kernel=sandboxed", "--ZMQTerminalIPythonApp.log_level=ERROR"]
    console = pexpect.spawn(
        sys.executable,
        arguments,
        cwd=os.fspath(desk.folder),
        env=desk.environment,
        dimensions=(40, 200),
        timeout=60,
        encoding="utf-8",
    )
    try:
        console.expect(r"In \[.*1.*\]:")
        console.send(f"{_WHERE}\r")
        console.expect(_INSIDE)
        console.expect(r"In \[.*2.*\]:")
        console.send("print(4 * 1000 + 2)\r")
        console.expect("4002")
        console.expect(r"In \[.*3.*\]:")
        console.send("print('be' + 'gun', flush=True); import time; time.sleep(1000)\r")
        console.expect("begun")
        console.sendintr()
        console.expect("KeyboardInterrupt")
        console.expect(r"In \[.*4.*\]:")
        processes = below(console.pid)
        console.send("exit\r")
        console.expect(pexpect.EOF)
        console.wait()
        assert console.exitstatus == 0
    finally:
        console.close(force=True)
    desk.wait_until_clear(processes)


def test_completion_and_a_restart_under_the_same_client(desk: Desk) -> None:
    code = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name='sandboxed', startup_timeout=100)
client.execute_interactive('a_rather_long_name = 1', timeout=60)
print(client.complete('a_rath', reply=True, timeout=60)['content']['matches'])
manager.restart_kernel()
client.wait_for_ready(timeout=100)
client.execute_interactive("print('a_rather_long_name' in globals())", timeout=60)
client.stop_channels()
manager.shutdown_kernel()
"""
    done = desk.run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["['a_rather_long_name']", "False", ""]
    desk.wait_until_clear(set())


def test_nbclient(desk: Desk) -> None:
    path = notebook(desk.folder, _WHERE, "x = 6", "print(x * 7)")
    code = f"""
import nbformat, nbclient
node = nbformat.read({str(path)!r}, as_version=4)
nbclient.NotebookClient(node, timeout=100).execute()
nbformat.write(node, 'out.ipynb')
"""
    done = desk.run("-c", code)
    assert done.returncode == 0, done.stderr
    assert printed(desk.folder / "out.ipynb") == [_INSIDE, "", "42"]
    desk.wait_until_clear(set())


def test_a_cell_that_raises_is_nbclients_own_error(desk: Desk) -> None:
    path = notebook(desk.folder, "1 / 0")
    done = desk.run("-m", "jupyter", "execute", os.fspath(path))
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    desk.wait_until_clear(set())


def test_papermill(desk: Desk) -> None:
    path = notebook(desk.folder, "x = 1", _WHERE, "print(x * 2)", tags=("parameters",))
    done = desk.run("-m", "papermill", os.fspath(path), "out.ipynb", "-p", "x", "21", "--no-progress-bar")
    assert done.returncode == 0, done.stderr
    assert printed(desk.folder / "out.ipynb") == ["", "", _INSIDE, "42"]
    desk.wait_until_clear(set())


@pytest.mark.parametrize(
    "command",
    [("execute", "--output=out"), ("nbconvert", "--execute", "--to=notebook", "--output=out")],
    ids=["execute", "nbconvert"],
)
def test_the_jupyter_command(desk: Desk, command: tuple[str, ...]) -> None:
    path = notebook(desk.folder, _WHERE, "print(6 * 7)")
    done = desk.run("-m", "jupyter", *command, os.fspath(path))
    assert done.returncode == 0, done.stderr
    assert printed(desk.folder / "out.ipynb") == [_INSIDE, "42"]
    desk.wait_until_clear(set())


_HOLD = """
import time
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="sandboxed", startup_timeout=100)
print("up", flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(1000)", "raise SystemExit"], ids=["killed", "forgetful"])
def test_nothing_is_left_of_a_client_that_does_not_say_goodbye(desk: Desk, then: str) -> None:
    command = [sys.executable, "-c", _HOLD.format(then=then)]
    with subprocess.Popen(
        command, cwd=desk.folder, env=desk.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "up\n"
            processes = below(client.pid)
            if "sleep" in then:
                assert list(desk.temporary.glob("omniops-jupyter-*"))
                assert list(desk.temporary.glob("*.json"))
                assert bool(desk.containers()) == bool(desk.docker)
        finally:
            if "sleep" in then:
                os.killpg(client.pid, signal.SIGKILL)
        client.wait(100)
    desk.wait_until_clear(processes)
