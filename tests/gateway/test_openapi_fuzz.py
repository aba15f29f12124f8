"""Every route of the OpenAPI document, with input that fits it and input that does not: no 5xx, nothing undeclared.

`make fuzz` tries more: FUZZ_EXAMPLES for each route and kind of input.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from gateway_world import ServedGateway, environment, own_database, scripted_model, served
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from demo.model.script import Script, Step

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
HELLO = Script("hello", "Count to three", (Step("1 + 2", ()),), "It is 3.")
#: A stream that does not end.
ENDLESS = ("/v1/approvals/events",)
WANTED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@dataclass
class World:
    gateway: ServedGateway
    http: httpx.Client
    session: str = ""

    def known(self, name: str) -> str | None:
        """What a part of a path can be, of what is there."""
        if name == "session":
            if not self.session or self.http.get(f"/v1/sessions/{self.session}").json()["state"] == "ended":
                self.session = self.http.post("/v1/sessions", json={"tenant": "shop"}).json()["id"]
                self.http.post(f"/v1/sessions/{self.session}/cells", json={"code": "1", "cell_id": "cell"})
            return self.session
        return {"tenant": "shop", "cell": "cell", "kernel": self.session, "path": "file.txt"}.get(name)


@pytest.fixture(scope="module")
def world(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "data").mkdir(mode=0o700)
    limits = {"OMNIOPS_CELL__DEADLINE_S": "5", "OMNIOPS_POOL__MAXIMUM": "64"}
    with (
        own_database(postgres) as url,
        scripted_model(folder, HELLO) as model,
        served(folder / "data", environment(url, **model, **limits)) as gateway,
        gateway.client() as http,
    ):
        yield World(gateway, http)


def test_no_route_fails_and_all_answer_as_they_are_described(world: World) -> None:
    document = world.http.get("/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=world.gateway.url)
    checks = CHECKS.get_by_names(list(WANTED))
    headers = {"authorization": f"Bearer {world.gateway.token}"}
    found: dict[str, str] = {}
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in ENDLESS:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                count = attack(world, operation, mode, checks, headers)
            except BaseExceptionGroup as problems:
                found[operation.label] = str(problems.exceptions[0])
                print("FOUND", operation.label, found[operation.label][:1500], flush=True)
            except AssertionError as problem:
                found[operation.label] = str(problem)
                print("FOUND", operation.label, found[operation.label][:1500], flush=True)
            else:
                tried += count
    assert found == {}, "\n\n".join(f"{label}: {problem}" for label, problem in found.items())
    assert tried > 100


def attack(world: World, operation: Any, mode: GenerationMode, checks: Any, headers: dict[str, str]) -> int:
    """So many requests were made. Raises what a check finds."""
    tried = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES < 10,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        nonlocal tried
        # every other request is about something that is there
        for name in case.path_parameters or ():
            known = world.known(name) if tried % 2 == 0 else None
            if known is not None:
                case.path_parameters[name] = known
        tried += 1
        answer = case.call(headers=headers, timeout=30)
        case.validate_response(answer, checks=checks)

    with suppress(Unsatisfiable):  # nothing that is sent to it can be wrong
        attempt()
    return tried
