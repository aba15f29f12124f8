"""Where kernels run is as configured, or the gateway does not start."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_world import settings_for

from gateway.runtime import open_gateway
from gateway.start_error import StartError


async def test_containers_that_cannot_be_had_are_no_reason_for_anything_weaker(
    tmp_path: Path, database_url: str
) -> None:
    nobody = f"unix://{tmp_path}/nobody.sock"
    settings = settings_for(tmp_path / "d", database_url, pool={"provisioner": "docker"}, docker={"host": nobody})
    with pytest.raises(StartError, match=f"no Docker daemon answers at {nobody}"):
        async with open_gateway(settings):
            pass


async def test_the_gateway_says_what_confines_its_kernels(tmp_path: Path, database_url: str) -> None:
    async with open_gateway(settings_for(tmp_path / "d", database_url)) as gateway:
        assert "seccomp" in gateway.isolation
