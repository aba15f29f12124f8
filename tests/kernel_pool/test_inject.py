"""Environment and files that a lease brings."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest
from attack import LIMITS, error, output
from pools import adapted

from kernel_pool.inject import Injection
from kernel_pool.pool import Pool
from kernel_pool.types import BadInjection, PoolConfig


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"PYTHONPATH": "/x"}, "variable PYTHONPATH has no effect in a kernel that is warm already"),
        ({"PYTHONHASHSEED": "0"}, "has no effect"),
        ({"LD_PRELOAD": "/x.so"}, "has no effect"),
        ({"OMP_NUM_THREADS": "8"}, "has no effect"),
        ({"": "x"}, "'' cannot be an environment variable"),
        ({"A=B": "x"}, "cannot be an environment variable"),
        ({"1A": "x"}, "cannot be an environment variable"),
        ({"A\n": "x"}, "cannot be an environment variable"),
        ({"A": "x\0y"}, "value of variable A holds a NUL"),
        ({"A": "x" * 70_000}, "may bring 65536 bytes of variables, not 70001"),
        ({f"A{n}": "" for n in range(300)}, "may bring 256 variables, not 300"),
    ],
)
def test_variables_that_cannot_be_are_named(env: dict[str, str], why: str) -> None:
    with pytest.raises(BadInjection, match=why):
        Injection.checked(env, None)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"": b""}, "'' cannot be a file's path"),
        ({"/etc/passwd": b""}, "cannot be a file's path"),
        ({"../x": b""}, "cannot be a file's path"),
        ({"a/../../x": b""}, "cannot be a file's path"),
        ({"a//b": b""}, "cannot be a file's path"),
        ({"./a": b""}, "cannot be a file's path"),
        ({"a\0b": b""}, "cannot be a file's path"),
        ({"a/": b""}, "cannot be a file's path"),
        ({"a" * 300: b""}, "cannot be a file's path"),
        ({"a": b"", "a/b": b""}, "'a' is to be a file and a folder"),
        ({"a": b"x" * 9_000_000}, "may bring 8388608 bytes of files, not 9000000"),
        ({f"f{n}": b"" for n in range(300)}, "may bring 256 files, not 300"),
    ],
)
def test_files_that_cannot_be_are_named(files: dict[str, bytes], why: str) -> None:
    with pytest.raises(BadInjection, match=why):
        Injection.checked(None, files)


async def test_they_are_there_before_the_first_cell_and_leave_no_trace(pool: Pool) -> None:
    content = bytes(range(256)) * 20_000
    env = {"SHOP_NAME": "Tür & Tor\n\"quoted\" 'too' {braces} \\n", "EMPTY": ""}
    kernel = await pool.lease(env=env, files={"in/data.bin": content, "note.txt": b"hi"})
    code = (
        "import os, subprocess, hashlib\n"
        "print(repr(os.environ['SHOP_NAME']), repr(os.environ['EMPTY']), open('note.txt').read())\n"
        "print(hashlib.sha256(open('in/data.bin', 'rb').read()).hexdigest())\n"
        "print(subprocess.run(['sh', '-c', 'printenv SHOP_NAME | wc -l'], capture_output=True, text=True).stdout)"
    )
    result = await kernel.execute(code, deadline_s=30)
    assert output(result).split("\n")[:3] == [
        f"{env['SHOP_NAME']!r} '' hi",
        hashlib.sha256(content).hexdigest(),
        "2",
    ]
    assert result.execution_count == 1
    names = "sorted(name for name in globals() if not name.startswith('_'))"
    fresh = await pool.lease()
    here = await kernel.execute("del os, subprocess, hashlib\n" + names, deadline_s=30)
    there = await fresh.execute(names, deadline_s=30)
    assert output(here) == output(there)
    assert output(await fresh.execute("import os; 'SHOP_NAME' in os.environ", deadline_s=30)) == "False"


async def test_files_that_do_not_fit_fail_the_lease_and_the_kernel_is_not_used(config: PoolConfig) -> None:
    pool = Pool(adapted(config, minimum=1, limits=replace(LIMITS, disk_mb=2)))
    await pool.start()
    try:
        with pytest.raises(BadInjection, match=r"File too large|No space left"):
            await pool.lease(files={"big": b"x" * 4_000_000}, tenant="a")
        assert (pool.status().leased, dict(pool.status().tenants)) == (0, {})
        kernel = await pool.lease(tenant="a")
        assert "FileNotFoundError" in error(await kernel.execute("open('big')", deadline_s=30))
    finally:
        await pool.close()


async def test_a_cancelled_lease_with_files_leaves_no_kernel(pool: Pool) -> None:
    task = asyncio.create_task(pool.lease(files={"a": b"x" * 4_000_000}, tenant="a"))
    while not pool.status().leased:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (pool.status().leased, dict(pool.status().tenants)) == (0, {})
