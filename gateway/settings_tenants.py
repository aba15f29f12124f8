"""Settings of one tenant: its shop, its tables, its token and policy."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, HttpUrl, SecretStr, model_validator

from .settings_approvals import WriteCaps
from .settings_group import Group
from .settings_schedules import ScheduleSettings
from .settings_scraping import ScrapingSettings
from .settings_sync import SyncSettings


class ShopSettings(Group):
    url: HttpUrl = Field(description="The WooCommerce store, such as https://shop.example.com.")
    consumer_key: SecretStr = Field(description="REST API key (ck_...).")
    consumer_secret: SecretStr = Field(description="REST API secret (cs_...).")
    timeout_s: float = Field(20.0, gt=0, description="Time of one request to the store.")
    in_flight: int = Field(4, gt=0, description="Requests to the store under way at once.")
    requests_per_s: float = Field(50.0, gt=0, description="Requests to the store started per second.")
    webhook_secret: SecretStr | None = Field(
        None, description="Signs the store's webhooks, 32 characters or more. None: none can be made."
    )
    sync: SyncSettings = Field(SyncSettings(), description="The copy of the store.")


class SupabaseSettings(Group):
    database_url: SecretStr | None = Field(
        None, description="Postgres of the project, as a login that may become `role` and nothing stronger."
    )
    url: HttpUrl | None = Field(None, description="In place of database_url: the project's API, with `key`.")
    key: SecretStr | None = Field(None, description="Its publishable (anon) key, never a secret one.")
    jwt_secret: SecretStr | None = Field(
        None, description="Signs the claims towards the API. None: requests go as anon, without claims."
    )
    role: str = Field("authenticated", min_length=1, max_length=63, description="Role that statements run as.")
    subject: str | None = Field(None, description="`sub` in the claims of staff's sessions, which auth.uid() gives.")
    claims: dict[str, str] = Field({}, description="Further claims of staff's sessions.")
    schemas: tuple[str, ...] = Field(
        ("public",), min_length=1, description="Schemas that are open; tables of the first are known by name alone."
    )
    open_tables: tuple[str, ...] = Field((), description="Tables without row-level security that may be used.")
    customer_may: tuple[str, ...] = Field(
        (), description="Tables and functions that conversations may read, guarded by the claim `customer`."
    )
    write_functions: tuple[str, ...] = Field(
        (), description="Functions that run_function may call without asking a person."
    )
    match_function: str = Field("match_documents", description="Function that match_documents calls.")
    statement_timeout_s: float = Field(15.0, gt=0, description="Time of one statement.")
    in_flight: int = Field(4, gt=0, description="Connections at once.")
    result_mb: int = Field(16, gt=0, description="Rows of one answer, MiB.")
    batch_rows: int = Field(500, gt=0, le=10_000, description="Rows that go in one statement or request.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.database_url is None and (self.url is None or self.key is None):
            raise ValueError("it wants database_url, or url and key")
        return self


class TenantSettings(Group):
    shop: ShopSettings | None = Field(None, description="The tenant's store; None: no store tools.")
    supabase: SupabaseSettings | None = Field(None, description="The tenant's own tables; None: none.")
    scraping: ScrapingSettings = Field(ScrapingSettings(), description="Crawls of sites, and what embeds their pages.")
    token: SecretStr | None = Field(None, description="Access token that reaches this tenant alone.")
    policy_file: Path | None = Field(None, description="Text file with the shop's policy, put into the agent's prompt.")
    mcp_file: Path | None = Field(None, description="`.mcp.json` with MCP servers of this tenant's own.")
    cells_per_day: int | None = Field(None, ge=0, description="Cells a day (UTC). None: as `limits` has it.")
    dollars_per_day: float | None = Field(
        None, ge=0, description="US dollars in a day (UTC). None: as `limits` has it."
    )
    writes: WriteCaps | None = Field(None, description="Caps of this tenant's writes; None: as `approvals` has them.")
    schedules: tuple[ScheduleSettings, ...] = Field((), description="Work that begins by itself: `[[...schedules]]`.")

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [each.name for each in self.schedules]
        if len(names) != len(set(names)):
            raise ValueError("two schedules have one name")
        return self
