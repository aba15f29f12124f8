"""What a restored session gets, and what it may not do."""

from __future__ import annotations

from pathlib import Path

from gateway_world import running_shop, settings_for

from gateway.runtime import open_gateway

CHANGE = """
from servers.woocommerce import verify_customer, change_customer_address
import time
customer = verify_customer(email="noah.brown7922@example.com")
street = f"{time.time_ns()} Main Street"
change_customer_address(
    customer_id=customer["id"], address_1=street, city="Denver", state="CO", postcode="80279", country="USA"
)["address"]
"""


async def test_a_cell_that_comes_out_otherwise_changes_nothing_more(tmp_path: Path, database_url: str) -> None:
    with running_shop() as shop:
        async with open_gateway(settings_for(tmp_path / "data", database_url, shop)) as gateway:
            session = (await gateway.sessions.create("shop", "test", "agent")).id
            first = await gateway.sessions.run_cell(session, CHANGE)
            assert first.result.status == "ok", first.envelope
            changed = shop.state()
            [again] = await gateway.sessions.restore(session)
            assert again.calls[0].replayed
            assert "ToolDenied: change_customer_address: the session is being restored" in again.envelope
            assert shop.state() == changed
            assert (await gateway.sessions.get(session)).state == "live"
