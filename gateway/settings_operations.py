"""Settings for those who run the gateway: who reads metrics, when it is ready."""

from __future__ import annotations

from pydantic import Field, SecretStr

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


class ReadySettings(Group):
    timeout_s: float = Field(2.0, gt=0, description="Time for one condition of `/readyz`; then it does not hold.")
    again_s: float = Field(1.0, ge=0, description="How long an answer holds: more questions in that time cost nothing.")
    free_mb: int = Field(64, ge=0, description="Least free space in the data folder, and in the runtime folder, MiB.")
