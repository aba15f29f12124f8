"""Jupyter's own conformance tests (`jupyter_kernel_test`): in a sandbox kernels pass what ipykernel does without one.

The reference runs here as well, so that the comparison is with the versions that are installed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
import threading
import unittest
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jupyter_kernel_test
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel
from places import PLACES, place_factory
from pools import place_config, pool_config

from kernel_pool.place import Place
from kernel_pool.sandbox.spec import CHANNELS
from kernel_pool.types import Exit, ExitReason, KernelKind, PlaceConfig

T = TypeVar("T")
_DONE = Exit(ExitReason.SHUTDOWN, "tested")

#: What a stock ipykernel fails: it gives the wanted lines of history under session 0, the test asks for its number.
STOCK_FAILS = {"test_history (hist_access_type='range')"}


class Conformance(jupyter_kernel_test.KernelTests):
    """Everything that the package can ask of a Python kernel. `connect` and the client belong to a subclass."""

    __test__ = False  # by pytest, which would run it without a kernel
    connect: Callable[[], Any]

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = ({"text": "zi", "matches": {"zip"}}, {"text": "imp", "matches": {"import"}})
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise ValueError"
    code_execute_result = ({"code": "1+2+3", "result": "6"}, {"code": "[n*n for n in [1, 2]]", "result": "[1, 4]"})
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
        cls._connected = cls.connect()
        cls.kc = cls._connected.__enter__()

    @classmethod
    def tearDownClass(cls) -> None:
        cls._connected.__exit__(None, None, None)


class _Outcomes(unittest.TestResult):
    """Names of tests and of their sub-tests that passed, failed or were not run."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: set[str] = set()
        self.failed: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.passed.add(test.id().rsplit(".", 1)[-1])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        name = subtest.id().rsplit(".", 1)[-1]
        if err is None:
            self.passed.add(name)
        else:
            self.failed[name] = f"{err[0].__name__}: {err[1]}"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.failed[test.id().rsplit(".", 1)[-1]] = f"{err[0].__name__}: {err[1]}"

    addError = addFailure


def outcomes(connect: Callable[[], Any]) -> _Outcomes:
    """Run all of the package's tests with the client of a kernel."""
    case = type("Case", (Conformance,), {"connect": staticmethod(connect)})
    result = _Outcomes()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


@contextmanager
def stock_client() -> Iterator[BlockingKernelClient]:
    """ipykernel by its own launcher, without a sandbox."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def reference() -> _Outcomes:
    return outcomes(stock_client)


class _Loop:
    """An event loop in a thread: the tests' client blocks."""

    def __enter__(self) -> _Loop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def sandboxed_client(place_of: Callable[[PlaceConfig], Place], kind: KernelKind) -> Iterator[BlockingKernelClient]:
    """A kernel in a sandbox, and Jupyter's own client on its sockets."""
    with tempfile.TemporaryDirectory(prefix="okp-") as folder, _Loop() as loop:
        place = place_of(place_config(pool_config(Path(folder) / "run", kernel=kind)))
        loop.run(place.start())
        try:
            process = loop.run(place.spawn())
            for number, channel in enumerate(CHANNELS, 1):
                Path(folder, f"k-{number}").symlink_to(process.directory / channel)
            client = BlockingKernelClient()
            ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}
            info = {"transport": "ipc", "ip": os.path.join(folder, "k"), "key": process.key}
            client.load_connection_info({**info, "signature_scheme": "hmac-sha256", **ports})
            client.start_channels()
            client.wait_for_ready(timeout=60)
            yield client
            client.stop_channels()
            loop.run(process.kill(_DONE))
            loop.run(place.discard(process))
        finally:
            loop.run(place.close())


@pytest.fixture(params=PLACES)
def sandbox(request: pytest.FixtureRequest) -> Callable[[PlaceConfig], Place]:
    return place_factory(request, request.param)


def test_the_stock_kernel_without_a_sandbox_fails_where_it_is_known_to(reference: _Outcomes) -> None:
    assert {name.replace('"', "'") for name in reference.failed} == STOCK_FAILS, reference.failed
    assert len(reference.passed) >= 25


@pytest.mark.parametrize("kind", ["forked", "stock"])
def test_a_sandboxed_kernel_passes_what_the_stock_one_does(
    sandbox: Callable[[PlaceConfig], Place], kind: KernelKind, reference: _Outcomes
) -> None:
    result = outcomes(functools.partial(sandboxed_client, sandbox, kind))
    assert reference.passed <= result.passed, (reference.passed - result.passed, result.failed)
    # what the forked kernel adds to that is the history by the session's number
    assert set(result.failed) <= (set() if kind == "forked" else set(reference.failed)), result.failed
