"""JupyterLab in a real browser, its kernels at a gateway: what an analyst does in a notebook."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nbformat.v4
import pytest
from lossy_proxy import Way, way_to
from own_database import own_database
from playwright.sync_api import Locator, Page, expect, sync_playwright
from served_gateway import environment, served

_TOKEN = "own"
_CELLS = (
    "x = 41",
    "print(x + 1)",
    "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()",
    "x.bit_l",
    "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider",
    "print(slider.value)",
    "import time\nprint('begun', flush=True)\ntime.sleep(600)",
    "for i in range(8):\n    print('line', i, flush=True)\n    time.sleep(0.1 if i else 5)",
    "print('x' in dir())",
)
_PLOT, _COMPLETE, _SLIDER, _VALUE, _ENDLESS, _LINES, _FORGOTTEN = range(2, 9)
#: A busy machine's browser takes its time.
_SLOW_MS = 60_000


@dataclass(frozen=True)
class Notebook:
    page: Page

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def output(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-OutputArea")

    def prompt(self, index: int) -> str:
        return self.cell(index).locator(".jp-InputPrompt").inner_text()

    def run(self, index: int) -> Locator:
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        return self.output(index)

    def command(self, keys: str) -> None:
        """Of the notebook, not of an editor in it."""
        self.page.keyboard.press("Escape")
        for key in keys:
            self.page.keyboard.press(key)

    def complete(self, editor: Locator, text: str) -> None:
        """By the kernel's completion: asked for until it comes, as JupyterLab waits for it no longer than a second."""
        ends = time.monotonic() + _SLOW_MS / 1000
        while editor.inner_text() != text:
            assert time.monotonic() < ends, editor.inner_text()
            editor.click()  # a Tab that an editor does not take goes to the next one
            self.page.keyboard.press("End")
            self.page.keyboard.press("Tab")
            self.page.wait_for_timeout(2000)
            if self.page.locator(".jp-Completer-item").first.is_visible():
                self.page.keyboard.press("Enter")

    @property
    def dialog(self) -> Locator:
        return self.page.locator(".jp-Dialog")


@contextmanager
def _lab(gateway: str, folder: Path) -> Iterator[int]:
    """Its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--gateway-url={gateway}", "--GatewayClient.auth_token=the-shops-own-token"]
    command += [f"--IdentityProvider.token={_TOKEN}", f"--ServerApp.root_dir={folder}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    with (
        open(folder / "lab.log", "w") as log,
        subprocess.Popen(
            command, env=kept | {"HOME": str(folder)}, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            ends = time.monotonic() + 60
            while not _answers(port):
                assert process.poll() is None, (folder / "lab.log").read_text()
                assert time.monotonic() < ends, "JupyterLab did not start"
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api", params={"token": _TOKEN}, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def lab(postgres: str, tmp_path: Path) -> Iterator[tuple[Notebook, Way]]:
    """An open notebook, and the way from JupyterLab's server to the gateway."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no Chromium (Debian's package chromium)")
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "lab").mkdir()
    cells = [nbformat.v4.new_code_cell(code) for code in _CELLS]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
    nbformat.write(notebook, tmp_path / "lab" / "work.ipynb")
    with (
        own_database(postgres) as url,
        served(tmp_path / "data", environment(url)) as gateway,
        way_to(int(gateway.url.rpartition(":")[2])) as way,
        _lab(f"http://127.0.0.1:{way.port}", tmp_path / "lab") as port,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1400, "height": 3000})
        page.set_default_timeout(_SLOW_MS)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/work.ipynb?token={_TOKEN}")
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
        yield Notebook(page), way
        chromium.close()


@pytest.mark.timeout(300)
def test_a_notebook_in_jupyterlab(lab: tuple[Notebook, Way]) -> None:
    notebook, way = lab
    expect.set_options(timeout=_SLOW_MS)

    while not re.fullmatch(r"\[\d+\]:", notebook.prompt(0)):  # the page is shown before it has its kernel
        notebook.run(0)
        notebook.page.wait_for_timeout(3000)
    expect(notebook.run(1)).to_have_text("42")
    expect(notebook.run(_PLOT).locator("img")).to_have_js_property("complete", True)
    assert notebook.output(_PLOT).locator("img").evaluate("image => image.naturalWidth") > 100

    editor = notebook.cell(_COMPLETE).locator(".cm-content")
    notebook.complete(editor, "x.bit_length")
    expect(notebook.run(_COMPLETE)).to_contain_text("bit_length")

    # a widget's messages go both ways
    slider = notebook.run(_SLIDER)
    expect(slider.locator(".widget-readout")).to_have_text("3")
    slider.locator(".noUi-handle").press("ArrowRight")
    expect(slider.locator(".widget-readout")).to_have_text("4")
    expect(notebook.run(_VALUE)).to_have_text("4")

    expect(notebook.run(_ENDLESS)).to_contain_text("begun")
    notebook.command("ii")
    expect(notebook.output(_ENDLESS)).to_contain_text("KeyboardInterrupt")

    # as when the network goes: what the cell prints meanwhile comes afterwards, once. All of it is printed while there
    # is no way: what is under way at the cut itself has left the gateway
    expect(notebook.run(_LINES)).to_contain_text("line 0")
    way.cut(8)
    expect(notebook.output(_LINES)).to_contain_text("line 7")
    assert notebook.output(_LINES).inner_text().strip().splitlines() == [f"line {i}" for i in range(8)]

    notebook.command("00")
    notebook.dialog.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(notebook.dialog).to_have_count(0)
    expect(notebook.run(_FORGOTTEN)).to_have_text("False")
    expect(notebook.dialog).to_have_count(0)
