"""Who may call which tool: named in its record, denied by default."""

from __future__ import annotations

import pytest

from gateway.approvals.policy import Ask, decide
from gateway.broker.policy import check_allowed
from gateway.settings import AgentSettings, WriteCaps
from gateway.types import Grant
from servers.errors import ToolDenied
from servers.registry import Registry
from servers.tool import EVERYBODY, Role, Tool, tool

#: What the agent of a conversation may call beside the everyday tools.
MORE = {
    "catalog.get_complete_page_details",
    "catalog.search_by_category",
    "scraping.get_page",
    "scraping.search_pages",
    "supabase.count_rows",
    "supabase.describe_table",
    "supabase.list_tables",
    "supabase.match_documents",
    "supabase.search_vectors",
    "supabase.select_rows",
    "supabase.stream_rows",
    "woocommerce.get_customer",
    "woocommerce.list_refunds",
    "woocommerce.refund_order",
    "woocommerce.woocommerce_operations",
}


def grant(role: Role) -> Grant:
    return Grant(tenant="shop", principal="p", session="s", role=role)


def allowed(role: Role, each: Tool) -> bool:
    try:
        check_allowed(grant(role), each)
    except ToolDenied:
        return False
    return True


def test_the_agent_has_its_everyday_tools_and_no_others(registry: Registry) -> None:
    may = {each.qualified_name for each in registry if allowed("agent", each)}
    assert may == set(AgentSettings().everyday_tools) | MORE


def test_an_analyst_reads_and_changes_nothing(registry: Registry) -> None:
    may = [each for each in registry if allowed("analyst", each)]
    assert {each.effect for each in may} == {"read"}
    others = {"gdpr.show_erasure", "support.reply"}  # of who erases people, and of who talks with them
    reads = {each.qualified_name for each in registry if each.effect == "read"}
    assert reads - others == {each.qualified_name for each in may}


def test_an_operator_may_call_every_tool_of_the_store(registry: Registry) -> None:
    assert all(allowed("operator", each) for each in registry.of_server("woocommerce"))


def test_the_role_is_looked_at_before_a_person_is_asked(registry: Registry) -> None:
    refund = registry.get("woocommerce.delete_refund")
    assert isinstance(decide(grant("operator"), refund, WriteCaps()), Ask)
    for role in EVERYBODY:
        if role != "operator":
            with pytest.raises(ToolDenied, match=f"not for a session of role '{role}'") as refusal:
                check_allowed(grant(role), refund)
            assert refusal.value.hint == "It is for operator."


def test_a_tool_that_names_no_role_is_for_operators_alone() -> None:
    async def forgotten(ctx: object) -> int:
        """Do something."""
        return 1

    made = tool(effect="read")(forgotten)
    assert [role for role in EVERYBODY if allowed(role, made)] == ["operator"]


def test_what_money_people_and_the_outside_see_needs_a_person(registry: Registry) -> None:
    critical = {each.name for each in registry if each.effect == "critical"}
    assert {name for name in (t.name for t in registry) if name.startswith("delete_")} <= critical
    assert {"refund_order", "send_order_note", "create_webhook"} <= critical


def test_a_write_says_how_it_is_undone_or_its_page_that_it_is_not(registry: Registry) -> None:
    names = {each.name for each in registry}
    for each in registry.of_server("woocommerce"):
        if each.revert:
            assert each.effect != "read"
            assert each.revert.split()[0].rstrip(",;") in names, each.name
    final = {each.name for each in registry.of_server("woocommerce") if each.effect == "write" and not each.revert}
    assert final == {
        "cancel_order",
        "change_order_items",
        "exchange_items",
        "return_items",
        *("sync_customers", "sync_orders", "sync_products", "sync_store"),  # the next one does it all again
        "trash_coupon",
        "woocommerce_operations",
    }
