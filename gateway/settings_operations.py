"""Settings for those who run the gateway: who reads metrics, when it is ready, where traces go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, HttpUrl, SecretStr

from .settings_group import Group


class MetricsSettings(Group):
    token: SecretStr | None = Field(
        None, description="Token that reads `/metrics` and nothing else. None: that is for roles ops and admin alone."
    )
    tenants: int = Field(100, gt=0, description="Tenants with figures of their own; further ones are `other`.")
    tools: int = Field(300, gt=0, description="Tools with figures of their own; further ones are `other`.")
    models: int = Field(20, gt=0, description="Models with figures of their own; further ones are `other`.")
    query_s: float = Field(2.0, gt=0, description="Time for the database's part; figures that come later are left out.")
    lag_every_s: float = Field(1.0, gt=0, description="Seconds between two measurements of the event loop's lag.")


class SavingsSettings(Group):
    currency: str = Field("USD", min_length=1, max_length=16, description="What `omniops savings` counts in.")
    per_dollar: float = Field(1.0, gt=0, description="What a US dollar is worth in it.")
    price_input: float | None = Field(
        None, ge=0, description="US dollars per million input tokens, for the ledger. None: as `model` has it."
    )
    price_cached: float | None = Field(None, ge=0, description="Likewise cached input tokens.")
    price_output: float | None = Field(None, ge=0, description="Likewise output tokens.")
    bytes_per_token: float = Field(
        4.0,
        ge=1,
        description="By which the bytes of long work are reckoned; real rows have fewer: it is cautious.",
    )


class ReadySettings(Group):
    timeout_s: float = Field(2.0, gt=0, description="Time for one condition of `/readyz`; then it does not hold.")
    again_s: float = Field(1.0, ge=0, description="How long an answer holds: more questions in that time cost nothing.")
    free_mb: int = Field(64, ge=0, description="Least free space in the data folder, and in the runtime folder, MiB.")


class TracingSettings(Group):
    endpoint: HttpUrl | None = Field(
        None,
        description="Where OpenTelemetry traces go by OTLP over HTTP, `http://.../v1/traces`. None: off.",
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Headers of these requests.")
    service: str = Field("omniops", description="`service.name` of the traces.")
    ratio: Annotated[float, Field(ge=0, le=1)] = Field(1.0, description="Share of traces that is kept.")
    timeout_s: float = Field(10.0, gt=0, description="Time for one such request.")
    queue: int = Field(2048, gt=0, description="Spans that wait to be sent; further ones are dropped.")
    pause_s: float = Field(5.0, gt=0, description="Seconds between two requests, where fewer spans come.")
    upstream: bool = Field(True, description="Requests to tools' stores carry `traceparent`.")
