"""Cells of Jupyter clients are saved behind their answers: together, in order, all of them."""

from __future__ import annotations

import httpx
import pytest
from gateway_world import ServedGateway
from jupyter_world import cells_of, new_kernel, wait_for
from socket_client import socket

pytestmark = pytest.mark.xdist_group("jupyter")


def test_many_quick_cells_are_all_in_the_transcript_in_order(jupyter: ServedGateway, http: httpx.Client) -> None:
    with new_kernel(http) as kernel:
        with socket(jupyter, kernel) as client:
            for n in range(60):
                assert client.run(f"print({n})").status == "ok"
        session = kernel.replace("-", "")
        http.delete(f"/api/kernels/{kernel}")
        cells = cells_of(jupyter, kernel, 60)
        assert [cell["outputs"][0]["text"] for cell in cells] == [f"{n}\n" for n in range(60)]
        assert [cell["metadata"]["omniops"]["index"] for cell in cells] == list(range(1, 61))
        rows = http.get(f"/v1/sessions/{session}/cells").json()
        assert {row["status"] for row in rows} == {"ok"}


def test_a_cell_of_the_platform_comes_after_those_of_the_client(
    jupyter: ServedGateway, http: httpx.Client, kernel: str
) -> None:
    session = kernel.replace("-", "")
    with socket(jupyter, kernel) as client:
        for n in range(5):
            client.run(f"x = {n}")
        ran = http.post(f"/v1/sessions/{session}/cells", json={"code": "x"}).json()
    assert ran["index"] == 6
    assert [cell["metadata"]["omniops"]["index"] for cell in cells_of(jupyter, kernel, 6)] == [1, 2, 3, 4, 5, 6]
    wait_for(lambda: {row["status"] for row in http.get(f"/v1/sessions/{session}/cells").json()} == {"ok"})
