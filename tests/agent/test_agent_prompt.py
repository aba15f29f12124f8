"""The system prompts, made from the real registry."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.agent.prompt import cells_prompt, direct_prompt
from gateway.settings import AgentSettings
from gateway.tokens import count_text
from servers.errors import ToolNotFound
from servers.registry import Registry, load_registry

POLICY = "Returns within 30 days."


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def everyday() -> tuple[str, ...]:
    return AgentSettings().everyday_tools


def test_the_default_everyday_tools_exist(registry: Registry) -> None:
    assert [name for name in everyday() if name not in registry] == []


def test_each_everyday_tool_has_its_stub(registry: Registry) -> None:
    prompt = cells_prompt(registry, everyday(), shop="acme")
    for name in everyday():
        assert f"\n{registry.get(name).name}(" in prompt


def test_each_server_has_a_line(registry: Registry) -> None:
    prompt = cells_prompt(registry, (), shop="acme")
    assert [name for name in registry.documents if f"- `servers.{name}`: " not in prompt] == []
    assert "# Everyday tools" not in prompt


def test_stubs_name_no_type_that_they_do_not_define(registry: Registry) -> None:
    prompt = cells_prompt(registry, ["woocommerce.lookup_order"], shop="acme")
    assert "\nOrder{" in prompt
    assert "\nLineItem{" in prompt
    assert "\nProduct{" not in prompt


def test_the_prompt_does_not_grow_with_the_catalogue(registry: Registry) -> None:
    tool = registry.get("woocommerce.lookup_order")
    more = [dataclasses.replace(tool, name=f"{tool.name}_{number}") for number in range(200)]
    larger = Registry([*registry, *more], registry.documents)
    assert cells_prompt(larger, everyday(), shop="acme") == cells_prompt(registry, everyday(), shop="acme")


def test_the_prompt_is_the_same_each_time() -> None:
    prompts = {cells_prompt(load_registry(), everyday(), shop="acme", policy=POLICY) for _ in range(2)}
    assert len(prompts) == 1


def test_both_prompts_hold_policy_and_rules(registry: Registry) -> None:
    for prompt in (
        cells_prompt(registry, everyday(), shop="acme", policy=POLICY),
        direct_prompt(shop="acme", policy=POLICY),
    ):
        assert POLICY in prompt
        assert "verify_customer" in prompt
        assert "acme" in prompt
    assert "run_cell" not in direct_prompt(shop="acme")


def test_the_rules_stay_small(registry: Registry) -> None:
    assert count_text(cells_prompt(registry, (), shop="acme")) < 800
    assert count_text(direct_prompt(shop="acme")) < 500


def test_an_unknown_everyday_tool_is_named(registry: Registry) -> None:
    with pytest.raises(ToolNotFound, match="lookup_ordr"):
        cells_prompt(registry, ["woocommerce.lookup_ordr"], shop="acme")
