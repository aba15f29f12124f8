"""Fifty sessions, eight at a time, leave nothing: no process, socket, folder, cgroup or descriptor of theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_world import settings_for

from benchmarks.sessions import Trace, descriptors, left_of, run_sessions
from gateway.runtime import open_gateway


@pytest.mark.timeout(300)
async def test_fifty_sessions_leave_nothing(tmp_path: Path, database_url: str, folder: Path) -> None:
    trace, before = Trace(), descriptors()
    runtime = folder / "run"
    settings = settings_for(tmp_path / "data", database_url, runtime_dir=runtime)
    async with open_gateway(settings) as gateway:
        session = (await gateway.sessions.create("shop", "test", "agent")).id
        kernel = gateway.sessions.kernel(session)
        assert kernel is not None
        alive = Trace({kernel.id: kernel.pid})
        assert len(left_of(alive, runtime)) > 2  # what a kernel has is seen while it lives
        await run_sessions(gateway, 50, trace)
        assert left_of(trace, runtime) == set()
        await gateway.sessions.end(session)
        assert gateway.pool.status().leased == 0
        assert left_of(alive, runtime) == set()
    assert not runtime.exists()
    assert descriptors() - before == set()
