"""A gateway that is killed: what it has confirmed is on disk, and the next one goes on with it."""

from __future__ import annotations

import pytest
from gateway_world import environment, notebook_of, own_database, served


def test_a_killed_gateway_leaves_its_transcript_and_the_next_one_goes_on(
    postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("killed") / "data"
    data.mkdir(mode=0o700)
    with own_database(postgres) as url:
        with served(data, environment(url)) as first, first.client() as http:
            session = http.post("/v1/sessions", json={"tenant": "shop"}).json()["id"]
            for number in range(3):
                http.post(f"/v1/sessions/{session}/cells", json={"code": f"x = {number}"})
            first.process.kill()
            first.process.wait()
            assert [cell.source for cell in notebook_of(data, session).cells] == ["x = 0", "x = 1", "x = 2"]
        with served(data, environment(url)) as second, second.client() as http:
            found = http.get(f"/v1/sessions/{session}").json()
            assert (found["state"], found["reason"]) == ("live", "")
            assert "value:  2" in http.post(f"/v1/sessions/{session}/cells", json={"code": "x"}).json()["envelope"]
            assert len(notebook_of(data, session).cells) == 4
