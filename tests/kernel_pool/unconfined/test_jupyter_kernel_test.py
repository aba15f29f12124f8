"""Jupyter's own conformance tests for kernels, on a forked one."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import jupyter_kernel_test
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from plain_kernels import PlainTemplate

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
KEY = b"0123456789abcdef"


@pytest.fixture(scope="class", autouse=True)
def hand_over_template(request: pytest.FixtureRequest, template: PlainTemplate) -> None:
    request.cls.template = template


class TestForkedKernel(jupyter_kernel_test.KernelTests):
    template: PlainTemplate

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = (
        {"text": "zi", "matches": {"zip"}},
        {"text": "imp", "matches": {"import"}},
    )
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise ValueError"
    code_execute_result = (
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    )
    code_display_data = (
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    )
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        """The kernel is forked by the first test: the template is a fixture."""
        cls.kc = None  # type: ignore[assignment]

    def setUp(self) -> None:
        if type(self).kc is None:
            type(self).kc = self._fork()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.kc.stop_channels()
        os.kill(cls.pid, signal.SIGKILL)
        shutil.rmtree(cls.folder)

    @classmethod
    def _fork(cls) -> BlockingKernelClient:
        cls.folder = Path(tempfile.mkdtemp(prefix="k-"))
        cls.pid = cls.template.fork(cls.folder, KEY)
        for number, channel in enumerate(CHANNELS, 1):
            (cls.folder / f"k-{number}").symlink_to(cls.folder / channel)
        client = BlockingKernelClient()
        ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}
        client.load_connection_info(
            {"transport": "ipc", "ip": str(cls.folder / "k"), "key": KEY, "signature_scheme": "hmac-sha256", **ports}
        )
        client.start_channels()
        client.wait_for_ready(timeout=20)
        return client
