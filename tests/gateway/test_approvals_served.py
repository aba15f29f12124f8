"""Approvals as people meet them: docs/approvals.md, with a store, real kernels, and a gateway that is killed."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_world import (
    KEY,
    SECRET,
    ServedGateway,
    ShopProcess,
    environment,
    omniops,
    own_database,
    running_shop,
    served,
)
from httpx_sse import connect_sse

from gateway.approvals.policy import caps_of
from gateway.settings import load_settings
from gateway.types import Grant

PAGE = (Path(__file__).parents[2] / "docs" / "approvals.md").read_text()
ANNA, BORIS = "annas-very-own-token", "boris-very-own-token"

REFUND = """
from servers.woocommerce import find_orders, refund_order
order = next(o for o in find_orders(limit=50) if float(o['total']) > 20)
refund = refund_order(order_id=order['id'], amount='{amount}', reason='late')
print(order['id'], refund['amount'])
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("approvals")


@pytest.fixture(scope="module")
def shop() -> Iterator[ShopProcess]:
    with running_shop() as running:
        yield running


@pytest.fixture(scope="module")
def env(shop: ShopProcess, postgres: str) -> Iterator[dict[str, str]]:
    store, approvals = "OMNIOPS_TENANTS__SHOP__SHOP__", "OMNIOPS_APPROVALS__"
    settings = {
        f"{store}URL": shop.url,
        f"{store}CONSUMER_KEY": KEY,
        f"{store}CONSUMER_SECRET": SECRET,
        f"{approvals}HOLD_S": "0",
        f"{approvals}LOOK_S": "0.05",
        f"{approvals}CLAIM_S": "1",
        f"{approvals}ELSEWHERE_S": "0.1",
        f"{approvals}APPROVERS__ANNA__TOKEN": ANNA,
        f"{approvals}APPROVERS__BORIS__TOKEN": BORIS,
        f"{approvals}APPROVERS__BORIS__TENANTS": '["other"]',
        "COLUMNS": "160",
    }
    with own_database(postgres) as url:
        yield environment(url, **settings)


def paused(http: httpx.Client, session: str, amount: str) -> tuple[str, dict[str, Any]]:
    """A refund in a cell that ends paused: the cell, and the request as Anna sees it."""
    cell = http.post(f"/v1/sessions/{session}/cells", json={"code": REFUND.format(amount=amount)}).json()
    assert cell["status"] == "paused", cell["envelope"]
    found: list[dict[str, Any]] = http.get("/v1/approvals", params={"session": session, "state": "pending"}).json()
    return cell["cell"], found[0]


def ended(http: httpx.Client, session: str, cell: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found: dict[str, Any] = http.get(f"/v1/sessions/{session}/cells/{cell}").json()
        if found["status"] not in ("paused", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError("the cell has not run again")


def refunds(shop: ShopProcess, order: int) -> list[str]:
    (found,) = [each for each in shop.state()["orders"] if each["id"] == order]
    return [each["total"] for each in found.get("refunds") or ()]


def test_a_request_outlives_its_gateway_and_is_decided_and_taken_back_by_people(
    folder: Path, env: dict[str, str], shop: ShopProcess
) -> None:
    data = folder / ".omniops"
    data.mkdir(mode=0o700)
    with served(data, env) as first, first.client() as http:
        session = http.post("/v1/sessions", json={"tenant": "shop", "role": "operator"}).json()["id"]
        cell, asked = paused(http, session, "1.50")
        _who_may(first, asked["id"])
        _is_streamed(first, asked["id"])
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
    with served(data, env) as second, second.client() as http:
        _followed_on_the_page(folder, env, asked["id"])
        found = ended(http, session, cell)
        assert found["status"] == "ok", found
        order, amount = found["result"]["outputs"][0]["text"].split()
        assert (amount, refunds(shop, int(order))) == ("1.50", ["-1.50"])
        again = second.client(ANNA).post(f"/v1/approvals/{asked['id']}/approve")
        assert (again.status_code, again.json()["code"]) == (409, "already_decided")
        assert "approver:anna has approved this" in again.json()["message"]
        _taken_back(folder, env, session, int(order), shop)
        cell, asked = paused(http, session, "2.00")
        denied = omniops(
            "approvals", "deny", asked["id"], "--note", "no\x1b[1m more", "--token", ANNA, env=env, cwd=folder
        )
        assert denied.returncode == 0, denied.stderr
        failed = ended(http, session, cell)
        assert failed["status"] == "error"
        assert "ApprovalDenied" in failed["result"]["envelope"]
        assert "approver:anna said: no more" in failed["result"]["envelope"]
        assert refunds(shop, int(order)) == []


def _who_may(gateway: ServedGateway, id: str) -> None:
    def status(token: str, method: str = "POST", path: str = f"/v1/approvals/{id}/approve") -> tuple[int, str]:
        with gateway.client(token) as http:
            answer = http.request(method, path)
            return answer.status_code, answer.json().get("code", "") if answer.is_error else ""

    assert status("nobody") == (401, "unauthorized")
    assert status("the-shops-own-token") == (404, "approval_not_found")  # an operator's session is beyond it
    assert status("the-others-own-token") == (404, "approval_not_found")
    assert status(BORIS) == (404, "approval_not_found")
    assert status(gateway.token) == (403, "not_yours_to_decide")  # its own session
    assert status(ANNA, "GET", "/v1/sessions") == (403, "forbidden")
    assert status(ANNA, "POST", "/v1/tenants/shop/catalog") == (403, "forbidden")
    assert status(BORIS, "POST", "/v1/calls/1/revert") == (404, "call_not_found")
    with gateway.client(ANNA) as http:
        assert http.get(f"/v1/approvals/{id}").json()["state"] == "pending"
        assert http.post(f"/v1/approvals/{id}/approve", json={"calls": [2]}).json()["code"] == "bad_decision"
        assert http.post(f"/v1/approvals/{id}/approve", json={"cals": [1]}).json()["code"] == "bad_request"


def _is_streamed(gateway: ServedGateway, id: str) -> None:
    with gateway.client(ANNA) as http, connect_sse(http, "GET", "/v1/approvals/events") as source:
        event = next(source.iter_sse())
    assert (event.event, json.loads(event.data)["id"]) == ("approval", id)


def _followed_on_the_page(folder: Path, env: dict[str, str], id: str) -> None:
    """The page's commands, with the id that `list` shows put in, up to the one that approves."""
    (look,), (decide, _) = blocks("sh"), blocks("text")
    for command in look.splitlines():
        done = omniops(*shlex.split(command)[1:], "--token", ANNA, env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert id in done.stdout or "calls" in command
    show, approve, part, deny = (shlex.split(line.replace("ID", id))[1:] for line in decide.splitlines())
    shown = omniops(*show, "--token", ANNA, env=env, cwd=folder).stdout
    for text in ("woocommerce.refund_order [critical]", "refunded", "1.50", "of order", "taken back by", "late"):
        assert text in shown.replace("target         order", "of order"), shown
    done = omniops(*approve, "--token", ANNA, env=env, cwd=folder)
    assert "approved by approver:anna: as agreed on the phone" in done.stdout, done.stderr
    assert part[:2] == ["approvals", "approve"]  # of a batch: tests/docs/test_tools_page.py has one
    late = omniops(*deny, "--token", ANNA, env=env, cwd=folder)
    assert (late.returncode, "nothing more happens" in late.stderr) == (1, True)


def _taken_back(folder: Path, env: dict[str, str], session: str, order: int, shop: ShopProcess) -> None:
    _, undo = blocks("text")
    look, revert = undo.splitlines()
    listed = omniops(*shlex.split(look.replace("SESSION", session))[1:], "--token", ANNA, env=env, cwd=folder).stdout
    assert "omniops calls revert" in listed
    number = re.search(r"^(\d+) ", listed, re.M)
    assert number is not None
    command = (*shlex.split(revert.replace("CALL", number[1]))[1:], "--token", ANNA)
    assert "is taken back" in omniops(*command, env=env, cwd=folder).stdout
    assert refunds(shop, order) == []
    again = omniops(*command, env=env, cwd=folder)
    assert (again.returncode, "has reverted call" in again.stderr) == (1, True)


def test_the_settings_on_the_page_are_understood(tmp_path: Path) -> None:
    caps, approvers = (tomllib.loads(block) for block in blocks("toml"))
    settings = load_settings(data_dir=tmp_path, **caps)

    def of(tenant: str, role: Any) -> Any:
        return caps_of(settings, Grant(tenant=tenant, principal="p", session="s", role=role))

    assert (of("example", "agent").amount, of("example", "agent").per_session_hour) == (Decimal(200), 10)
    assert (of("example", "operator").irreversible, of("another", "operator").per_session_hour) == ("ask", 50)
    people = load_settings(data_dir=tmp_path, tenants={"example": {}}, **approvers).approvals.approvers
    assert people["anna"].tenants == ("example",)


def test_every_setting_that_the_page_names_is_one_with_the_default_that_it_says() -> None:
    approvals = load_settings().approvals
    for name in re.findall(r"`approvals\.(\w+)(?: = \w+)?`", PAGE):
        assert hasattr(approvals, name), name
    assert (approvals.hold_s, approvals.hold_chat_s, approvals.expires_s) == (120, 0, 7 * 24 * 3600)
    assert (approvals.writes.per_session_hour, approvals.own_sessions, approvals.tenant_tokens) == (100, False, False)
