"""jupyter_client starts sandboxed kernels through the entry point, and Jupyter's own kernel tests run on one."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from collections.abc import Iterator

import jupyter_kernel_test
import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from kernel_pool.provisioner import LocalProvisioner
from kernel_pool.types import KernelGone

SPEC = {
    "argv": ["omniops"],
    "display_name": "Python 3 (sandboxed)",
    "language": "python",
    "metadata": {
        "kernel_provisioner": {
            "provisioner_name": "omniops-local",
            "config": {"preload": [], "memory_mb": 192, "processes": 32},
        }
    },
}


@pytest.fixture(scope="module", autouse=True)
def kernelspec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The kernelspec `sandboxed`, where jupyter_client finds it."""
    folder = tmp_path_factory.mktemp("jupyter")
    spec = folder / "kernels" / "sandboxed" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(SPEC))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", os.fspath(folder))
        patch.setenv("JUPYTER_RUNTIME_DIR", os.fspath(folder / "runtime"))
        yield


def manager() -> AsyncKernelManager:
    return AsyncKernelManager(kernel_name="sandboxed", kernel_spec_manager=KernelSpecManager())


def process_of(kernels: AsyncKernelManager) -> LocalProvisioner:
    assert isinstance(kernels.provisioner, LocalProvisioner)
    return kernels.provisioner


async def run(kernels: AsyncKernelManager, code: str) -> tuple[str, str]:
    """Status of a cell, and what it printed."""
    client: AsyncKernelClient = kernels.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        printed: list[str] = []

        def hear(message: dict[str, dict[str, str]]) -> None:
            printed.append(message["content"].get("text", ""))

        reply = await client.execute_interactive(code, timeout=30, output_hook=hear)
        return reply["content"]["status"], "".join(printed).strip()
    finally:
        client.stop_channels()


async def test_a_kernel_manager_starts_a_sandboxed_kernel_and_ends_it() -> None:
    kernels = manager()
    await kernels.start_kernel()
    code = "import os; print(os.getpid(), os.getuid(), os.getcwd())"
    assert await run(kernels, code) == ("ok", "1 1000 /home/kernel")
    assert await kernels.is_alive()
    shared = process_of(kernels)._shared
    assert shared is not None
    (process,) = shared.processes.values()
    folder, pidfd = shared.folder, os.pidfd_open(process.pid)
    await kernels.shutdown_kernel()
    assert select.select([pidfd], [], [], 30)[0]
    os.close(pidfd)
    assert not folder.exists()
    assert not await kernels.is_alive()


async def test_a_restart_gives_a_new_kernel_without_the_old_ones_state() -> None:
    kernels = manager()
    await kernels.start_kernel()
    try:
        assert await run(kernels, "x = 1; print(x)") == ("ok", "1")
        await kernels.restart_kernel()
        assert await run(kernels, "print('x' in globals())") == ("ok", "False")
    finally:
        await kernels.shutdown_kernel(now=True)


async def test_an_interrupt_stops_the_cell() -> None:
    kernels = manager()
    await kernels.start_kernel()
    client = kernels.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        request = client.execute("import time; print('begun', flush=True)\nwhile True: time.sleep(0.01)")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        await kernels.interrupt_kernel()
        reply = await client.get_shell_msg(timeout=30)
        assert reply["parent_header"]["msg_id"] == request
        assert reply["content"]["ename"] == "KeyboardInterrupt"
    finally:
        client.stop_channels()
        await kernels.shutdown_kernel(now=True)


async def test_a_dead_kernel_is_noticed() -> None:
    kernels = manager()
    await kernels.start_kernel()
    try:
        process = process_of(kernels)._process
        assert process is not None
        os.kill(process.pid, 9)
        while await kernels.is_alive():
            await asyncio.sleep(0.01)
    finally:
        await kernels.shutdown_kernel(now=True)


async def test_kernels_of_one_configuration_share_a_template_and_nothing_else() -> None:
    first, second = manager(), manager()
    await first.start_kernel()
    await second.start_kernel()
    try:
        assert process_of(first)._shared is process_of(second)._shared
        await run(first, "x = 1")
        assert await run(second, "print('x' in globals())") == ("ok", "False")
        await first.shutdown_kernel(now=True)
        assert await run(second, "print(1 + 1)") == ("ok", "2")
    finally:
        await second.shutdown_kernel(now=True)


async def test_another_program_takes_over_what_it_was_told_of() -> None:
    """What one provisioner tells, another loads; it interrupts by message, and can end the kernel."""
    first, second = manager(), manager()
    await first.start_kernel()
    try:
        assert first.provisioner is not None
        told = await first.provisioner.get_provisioner_info()
        assert told["kernel_id"] == first.kernel_id
        second.provisioner = LocalProvisioner(kernel_spec=first.kernel_spec, parent=second)
        await second.provisioner.load_provisioner_info(told)
        assert second.provisioner.has_process
        assert await second.provisioner.poll() is None
        client = first.client()
        client.start_channels()
        await client.wait_for_ready(timeout=30)
        client.execute("print('begun', flush=True)\nimport time; time.sleep(100)")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        await second.provisioner.send_signal(signal.SIGINT)
        assert (await client.get_shell_msg(timeout=30))["content"]["ename"] == "KeyboardInterrupt"
        client.stop_channels()
        await second.provisioner.kill()
        await second.provisioner.wait()
        assert not second.provisioner.has_process
        while await first.is_alive():
            await asyncio.sleep(0.01)
    finally:
        await first.shutdown_kernel(now=True)
    with pytest.raises(KernelGone, match="no such kernel"):
        await second.provisioner.load_provisioner_info(told)


async def test_a_stopped_kernel_goes_on_when_it_is_told_to() -> None:
    kernels = manager()
    await kernels.start_kernel()
    try:
        await kernels.signal_kernel(signal.SIGSTOP)
        await kernels.signal_kernel(signal.SIGCONT)
        assert await run(kernels, "print(1 + 1)") == ("ok", "2")
        await kernels.signal_kernel(signal.SIGTERM)
        assert not await kernels.is_alive()
    finally:
        await kernels.shutdown_kernel(now=True)


async def test_memory_is_watched() -> None:
    kernels = manager()
    await kernels.start_kernel()
    try:
        process = process_of(kernels)._process
        assert process is not None
        client = kernels.client()
        client.start_channels()
        await client.wait_for_ready(timeout=30)
        client.execute(f"import mmap; m = mmap.mmap(-1, {512 << 20})\nfor i in range(0, len(m), 4096): m[i] = 1")
        while await kernels.is_alive():
            await asyncio.sleep(0.01)
        client.stop_channels()
        assert "its memory limit is 192 MiB" in process.exited.result().detail
    finally:
        await kernels.shutdown_kernel(now=True)


class TestSandboxedKernel(jupyter_kernel_test.KernelTests):
    """Jupyter's conformance tests, through the blocking client."""

    kernel_name = "sandboxed"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = ({"text": "zi", "matches": {"zip"}},)
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise ValueError"
    code_execute_result = ({"code": "1+2+3", "result": "6"},)
    code_display_data = (
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
    )
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
