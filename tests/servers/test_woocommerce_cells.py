"""The store's tools from cells: real kernels, a real broker and journal, a shop on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import HttpUrl, SecretStr
from shop_server import Faulty
from staff_cases import LINES, ORDER, PRODUCT, SECRET
from tool_bench import KEY

from gateway.settings import ShopSettings
from gateway.testing import ToolSession, tool_session
from servers.errors import ApprovalRequired, ToolDenied, ToolInputError
from servers.tool import Role

TRIED: tuple[Role, ...] = ("operator", "analyst", "agent")


def connected(url: str) -> ShopSettings:
    return ShopSettings(
        url=HttpUrl(url),
        consumer_key=SecretStr(KEY.consumer_key),
        consumer_secret=SecretStr(KEY.consumer_secret),
        webhook_secret=SecretStr(SECRET),
    )


@pytest.fixture(scope="module", params=TRIED)
def role(request: pytest.FixtureRequest) -> Role:
    found: Role = request.param
    return found


@pytest.fixture(scope="module")
def session(role: Role, faulty: tuple[Faulty, str]) -> Iterator[ToolSession]:
    faulty[0].arm()
    with tool_session(role=role, shop=connected(faulty[1]), customer=3 if role == "agent" else None) as session:
        yield session


def test_a_cell_makes_an_order_if_its_role_may(session: ToolSession, role: Role) -> None:
    if role != "operator":
        with pytest.raises(ToolDenied, match=f"not for a session of role '{role}'"):
            session.call("woocommerce.create_order", lines=LINES)
        return
    made = session.call("woocommerce.create_order", lines=LINES, customer_id=3)
    [call] = session.cell(
        f"from servers.woocommerce import set_order_status\nset_order_status(order_id={made['id']}, status='completed')"
    ).calls
    assert (call.state, call.result["status"], call.effect) == ("applied", "completed", "write")
    assert session.call("woocommerce.get_order", order_id=made["id"])["status"] == "completed"
    with pytest.raises(ToolInputError, match="Did you mean lines"):
        session.call("woocommerce.create_order", line=LINES)


def test_what_moves_money_waits_for_a_person_or_is_denied(session: ToolSession, role: Role) -> None:
    with pytest.raises(ApprovalRequired if role == "operator" else ToolDenied):
        session.call("woocommerce.refund_order", order_id=ORDER, amount="1.00")


def test_figures_are_for_staff(session: ToolSession, role: Role) -> None:
    if role == "agent":
        with pytest.raises(ToolDenied):
            session.call("woocommerce.find_orders")
        return
    code = (
        "import pandas as pd\nfrom servers.woocommerce import find_orders\n"
        "frame = pd.DataFrame(find_orders(limit=250))\nprint(len(frame), frame['number'].nunique())"
    )
    assert "250 250" in session.cell(code).envelope


def test_the_keys_are_nowhere_in_what_a_cell_gets(session: ToolSession) -> None:
    run = session.cell(
        "import os, gc\nfrom servers.woocommerce import get_product_details\n"
        f"get_product_details(product_id={PRODUCT})\n"
        "print([o for o in gc.get_objects() if isinstance(o, dict) and 'consumer_secret' in o], dict(os.environ))"
    )
    assert run.result.status == "ok"
    for secret in (KEY.consumer_key, KEY.consumer_secret, SECRET):
        assert secret not in str(run.result.outputs)
        assert secret not in run.envelope
