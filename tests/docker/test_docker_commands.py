"""The commands of docs/containers.md, and tools called from a container's kernel through the whole gateway."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from places import CONTAINERS

PROJECT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)


def commands() -> list[str]:
    block = BLOCK.search((PROJECT / "docs" / "containers.md").read_text())
    assert block is not None
    return [line.partition("#")[0].strip() for line in block[1].splitlines()]


@contextmanager
def served(folder: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """The gateway as the page starts it; what it says of itself."""
    (folder / ".venv").symlink_to(sys.prefix)
    with subprocess.Popen(
        ["bash", "-c", f"exec env {commands()[2]}"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("OMNIOPS_")} | environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield [line for _, line in zip(range(6), process.stdout, strict=False)]
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def test_the_page_names_scripts_that_are_there() -> None:
    assert commands()[:2] == ["sudo docker/setup-debian", "docker/build-image"]
    assert all((PROJECT / path).exists() for path in ("docker/setup-debian", "docker/build-image"))


@pytest.mark.parametrize("runtime", CONTAINERS)
def test_a_cell_in_a_container_reaches_the_tools(
    runtime: str, docker_host: str, sandbox_image: str, tmp_path: Path
) -> None:
    environment = {
        "DOCKER_HOST": docker_host,
        "OMNIOPS_DOCKER__IMAGE": sandbox_image,
        "OMNIOPS_DOCKER__RUNTIME": runtime,
        "OMNIOPS_SERVER__PORT": "0",
        "OMNIOPS_POOL__WARM": "1",
        "OMNIOPS_POOL__PRELOAD": "[]",
        "OMNIOPS_TENANTS__ACME": "{}",
    }
    with served(tmp_path, environment) as told:
        text = "".join(told)
        assert "containers" in text
        address = re.search(r"(http://[\d.:]+)/\?token=(\S+)", text)
        assert address is not None, text
        with httpx.Client(
            base_url=address[1], headers={"authorization": f"Bearer {address[2]}"}, timeout=100, trust_env=False
        ) as http:
            session = http.post("/v1/sessions", json={"tenant": "acme"}).json()["id"]
            code = "from servers.support import hand_over\nprint(hand_over(summary='a test')['status'])"
            cell = http.post(f"/v1/sessions/{session}/cells", json={"code": code}).json()
            assert "waiting" in cell["envelope"], cell
            assert http.delete(f"/v1/sessions/{session}").status_code == 204
