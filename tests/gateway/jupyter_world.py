"""A gateway that Jupyter clients talk to, with limits that are soon reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_world import ServedGateway, environment, notebook_of, own_database, served

SHOP, OTHER = "the-shops-own-token", "the-others-own-token"
_SETTINGS = {
    "OMNIOPS_JUPYTER__TENANT": "shop",
    "OMNIOPS_JUPYTER__MESSAGE_MB": "1",
    "OMNIOPS_JUPYTER__UNREAD_MB": "2",
    "OMNIOPS_JUPYTER__ABSENT_MB": "1",
    "OMNIOPS_JUPYTER__QUEUE": "20",
    "OMNIOPS_JUPYTER__CLIENTS": "4",
    "OMNIOPS_CELL__CODE_KB": "64",
}


@contextmanager
def jupyter_gateway(postgres: str, folder: Path, **settings: str) -> Iterator[ServedGateway]:
    """Its data are in `folder`/data, its log beside."""
    with own_database(postgres) as url:
        (folder / "data").mkdir(mode=0o700)
        with served(folder / "data", environment(url, **(_SETTINGS | settings))) as gateway:
            yield gateway
            assert gateway.stop() == 0


@contextmanager
def new_kernel(http: httpx.Client, **body: object) -> Iterator[str]:
    """A kernel's id."""
    answer = http.post("/api/kernels", json=body) if body else http.post("/api/kernels")
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/kernels/{answer.json()['id']}"
    yield answer.json()["id"]
    http.delete(answer.headers["location"])


def cells_of(gateway: ServedGateway, kernel: str, count: int) -> list[Any]:
    """What the transcript has of a kernel, once it has so many cells."""

    def cells() -> list[Any]:
        found: list[Any] = notebook_of(gateway.data_dir, kernel.replace("-", "")).cells
        return found

    wait_for(lambda: len(cells()) >= count)
    return cells()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def jupyter(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    """One gateway for all tests of Jupyter's interface."""
    with jupyter_gateway(postgres, tmp_path_factory.mktemp("jupyter")) as gateway:
        yield gateway


@pytest.fixture
def http(jupyter: ServedGateway) -> Iterator[httpx.Client]:
    with jupyter.client(SHOP) as http:
        yield http


@pytest.fixture
def kernel(http: httpx.Client) -> Iterator[str]:
    with new_kernel(http) as kernel:
        yield kernel
