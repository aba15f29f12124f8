"""Settings of the model and of the agent that uses it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .settings_group import Group


class ModelSettings(Group):
    name: str = Field("gpt-4.1", description="Model that the agent asks for.")
    timeout_s: float = Field(60.0, gt=0, description="Time of one request to the model.")
    retries: int = Field(2, ge=0, description="Repeats of a request that failed in transport or with 429/5xx.")
    max_output_tokens: int = Field(4096, ge=64, description="Tokens of one reply.")
    price_input: float = Field(2.0, ge=0, description="US dollars per million input tokens.")
    price_cached: float = Field(0.5, ge=0, description="US dollars per million cached input tokens.")
    price_output: float = Field(8.0, ge=0, description="US dollars per million output tokens.")


class AgentSettings(Group):
    mode: Literal["cells", "direct"] = Field("cells", description="Cells in a kernel, or direct tool calls.")
    max_steps: int = Field(12, gt=0, description="Requests to the model in one turn.")
    max_tokens: int = Field(200_000, gt=0, description="Input and output tokens of one turn.")
    max_seconds: float = Field(180.0, gt=0, description="Wall time of one turn.")
    max_dollars: float = Field(1.0, gt=0, description="Cost of one turn at the model's prices.")
    max_bad_replies: int = Field(3, gt=0, description="Unusable model replies in a row that end a turn.")
    paused_answer: str = Field(
        "A colleague has to approve this first. I have passed it on and will let you know.",
        description="What a customer is told of a call that waits for a person, where the model finds no words.",
    )
    everyday_tools: tuple[str, ...] = Field(
        (
            "catalog.search_products",
            "woocommerce.verify_customer",
            "woocommerce.lookup_order",
            "woocommerce.list_orders",
            "woocommerce.get_product_details",
            "woocommerce.cancel_order",
            "woocommerce.change_order_address",
            "woocommerce.change_order_items",
            "woocommerce.change_order_payment",
            "woocommerce.return_items",
            "woocommerce.exchange_items",
            "woocommerce.change_customer_address",
            "support.hand_over",
            "support.reply",
        ),
        description="Tools whose stubs stand in the prompt; cells find the others by `servers.search`.",
    )
    prompt_servers: int = Field(
        20, ge=0, description="Servers that have a line in the prompt, those of the everyday tools first."
    )
    direct_tools: int = Field(
        128, gt=0, description="Functions of one request in direct mode: OpenAI takes no more. The everyday ones first."
    )
