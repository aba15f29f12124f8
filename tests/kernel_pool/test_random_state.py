"""Kernels forked from one template draw different random numbers. What they do share is said here and in the page."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from attack import output
from places import PLACES_OF_USE, place_factory
from pools import pool_config

from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

Pair = tuple[Kernel, Kernel]
_PRELOAD = ("numpy", "pandas", "pyarrow", "pyarrow.compute", "duckdb", "secrets", "ssl", "uuid")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PLACES_OF_USE)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Two kernels of one template (in containers: of one image)."""
    with tempfile.TemporaryDirectory(prefix="okp-") as folder:
        pool = Pool(pool_config(Path(folder) / "run", preload=_PRELOAD), place_factory(request, request.param))
        await pool.start()
        yield await pool.lease(), await pool.lease()
        await pool.close()


async def both(pair: Pair, code: str) -> tuple[str, str]:
    one, other = [await kernel.execute(code, deadline_s=60) for kernel in pair]
    assert (one.status, other.status) == ("ok", "ok"), (one.error, other.error)
    return output(one), output(other)


@pytest.mark.parametrize(
    "code",
    [
        "import random; random.random()",
        "import random; random.SystemRandom().random()",
        "import numpy as np; np.random.rand()",
        "import numpy as np; np.random.default_rng().random()",
        "import numpy as np; np.random.RandomState().rand()",
        "import pandas as pd; pd.Series(range(10**6)).sample(1).iloc[0]",
        "import uuid; uuid.uuid1().hex[:8] + uuid.uuid1().hex[20:]",
        "import uuid; uuid.uuid4()",
        "import secrets; secrets.token_hex()",
        "import ssl; ssl.RAND_bytes(8)",
        "import os; os.urandom(8)",
        "import tempfile; tempfile.mktemp()",
        "import tempfile; tempfile.NamedTemporaryFile().name",
        "import sqlite3; sqlite3.connect(':memory:').execute('select hex(randomblob(8))').fetchone()",
        "import sqlite3; sqlite3.connect('file.db').execute('select random()').fetchone()",
        "import duckdb; duckdb.sql('select random()').fetchall()",
        "import pyarrow.compute as pc; pc.random(1)[0]",
        "import multiprocessing; bytes(multiprocessing.current_process().authkey)",
        "import threading, random; x = []; t = threading.Thread(target=lambda: x.append(random.random())); t.start()\n"
        "t.join(); x",
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import random; print(random.random())'], capture_output=True).stdout",
    ],
)
async def test_kernels_draw_different_numbers(pair: Pair, code: str) -> None:
    one, other = await both(pair, code)
    assert one != other


async def test_a_seed_still_gives_what_it_gives(pair: Pair) -> None:
    one, other = await both(
        pair, "import random, numpy as np; random.seed(1); np.random.seed(1)\nrandom.random(), np.random.rand()"
    )
    assert one == other


async def test_the_hash_seed_is_the_templates(pair: Pair, request: pytest.FixtureRequest) -> None:
    """A fork cannot change it: all kernels of a local template hash text alike. Containers have their own."""
    one, other = await both(pair, "hash('text')")
    assert (one == other) == (request.node.callspec.params["pair"] == "local")
