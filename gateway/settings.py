"""Every limit, time-out and path, in one typed place.

Values come from (first wins): arguments, environment variables `OMNIOPS_<NAME>` (nested: `OMNIOPS_POOL__WARM`), a
TOML file named by `OMNIOPS_CONFIG` (default `omniops.toml` in the working directory). `DATABASE_URL`,
`OPENAI_API_KEY` and `OPENAI_BASE_URL` are read under their usual names. `docs/configuration.md` holds the table.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

import pydantic_settings
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from .settings_errors import explain, explain_json, explain_variables

PREFIX = "OMNIOPS_"


class SettingsError(Exception):
    """Settings are wrong or missing. `problems` has a paragraph for each: which, what it wants, where to set it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(["The configuration cannot be used:", *(f"- {problem}" for problem in problems)]))
        self.problems = tuple(problems)


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Group):
    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    port: int = Field(8765, ge=0, le=65535, description="Port; 0 takes a free one.")
    token: SecretStr | None = Field(None, description="Access token. None: one is made at the first start and kept.")
    max_request_mb: int = Field(8, gt=0, description="Largest request body, MiB.")
    heartbeat_s: float = Field(15.0, gt=0, description="Seconds between two signs of life on a quiet event stream.")
    shutdown_grace_s: float = Field(10.0, gt=0, description="Time that running cells get at a stop.")


class ClientSettings(_Group):
    url: HttpUrl | None = Field(None, description="Gateway that the command line asks. None: the one on data_dir.")
    token: SecretStr | None = Field(None, description="Its access token.")


class PoolSettings(_Group):
    provisioner: Literal["local", "docker"] = Field(
        "local", description="Where kernels run: in sandboxes of this machine, or in containers (group docker)."
    )
    warm: int = Field(2, ge=0, description="Ready kernels kept in stock.")
    maximum: int = Field(32, gt=0, description="Kernels that may live at once, leased ones included.")
    preload: tuple[str, ...] = Field(
        ("numpy", "pandas", "pyarrow"), description="Modules that the template imports before it forks."
    )
    start_timeout_s: float = Field(30.0, gt=0, description="Time for a template or kernel to come up.")
    lease_timeout_s: float = Field(30.0, gt=0, description="Time to wait for a free kernel.")
    orphan_grace_s: float = Field(60.0, ge=0, description="How long kernels outlive a gateway that went away.")
    watch_interval_s: float = Field(0.25, gt=0, description="Seconds between two looks of the memory watcher.")
    memory_mb: int = Field(512, gt=0, description="Memory of one kernel, MiB.")
    disk_mb: int = Field(128, gt=0, description="Files of one kernel, MiB (in memory).")
    processes: int = Field(64, gt=1, description="Processes and threads of one kernel.")
    open_files: int = Field(1024, ge=64, description="Open files of one process.")
    cpu_seconds: int = Field(3600, gt=0, description="CPU time of each process of a kernel over its life.")
    uid_first: int = Field(700_000, gt=999, description="As root: first user id that kernels run as.")
    uid_count: int = Field(10_000, gt=0, description="As root: how many user ids kernels may use.")


class DockerSettings(_Group):
    image: str = Field("omniops-sandbox", description="The sandbox image; `docker/build-image` makes it.")
    runtime: Literal["runc", "runsc"] = Field("runc", description="runsc: gVisor, a kernel of its own in between.")
    host: str | None = Field(None, description="Address of the daemon. None: DOCKER_HOST, or the usual socket.")
    cpus: float = Field(1.0, gt=0, description="Cores that one kernel may use.")


class CellSettings(_Group):
    deadline_s: float = Field(60.0, gt=0, description="Wall time of a cell; then it is interrupted.")
    interrupt_grace_s: float = Field(5.0, gt=0, description="Time to stop after that; then its kernel is killed.")
    code_kb: int = Field(256, gt=0, description="Largest cell, KiB.")
    output_mb: int = Field(10, gt=0, description="Output kept of a cell, MiB.")
    output_flood_mb: int = Field(100, gt=0, description="Output after which a cell is interrupted, MiB.")
    envelope_tokens: int = Field(2000, gt=100, description="Tokens of a cell's envelope to the model.")
    queue: int = Field(16, ge=0, description="Cells of one session that may wait for the one that runs.")
    idle_s: float = Field(1800.0, gt=0, description="After this time without a cell a session's kernel is taken.")


class BrokerSettings(_Group):
    calls_per_cell: int = Field(1000, gt=0, description="Tool calls in one cell.")
    calls_per_session: int = Field(10_000, gt=0, description="Tool calls in one session.")
    concurrent_calls: int = Field(16, gt=0, description="Tool calls of one session under way at once.")
    connections: int = Field(64, gt=0, description="Connections of one sandbox to its broker socket.")
    call_timeout_s: float = Field(60.0, gt=0, description="Wall time of one tool call.")
    seconds_per_cell: float = Field(600.0, gt=0, description="Time of all tool calls of one cell, added up.")
    request_mb: int = Field(16, gt=0, le=16, description="Largest request frame from a kernel, MiB.")
    request_values: int = Field(200_000, gt=0, description="Values in the arguments of one call, nested ones included.")
    result_mb: int = Field(16, gt=0, le=256, description="Largest result of one tool call, MiB.")
    cell_mb: int = Field(256, gt=0, description="Arguments and results of one cell's tool calls together, MiB.")
    stall_s: float = Field(30.0, gt=0, description="Time for a kernel to send the rest of a frame or take an answer.")
    settle_s: float = Field(5.0, ge=0, description="How long the end of a cell waits for writes under way.")


class DatabaseSettings(_Group):
    pool_size: int = Field(8, gt=0, description="Connections of one gateway.")
    connect_timeout_s: float = Field(20.0, gt=0, description="Time to reach the database at start.")
    statement_timeout_s: float = Field(30.0, gt=0, description="Time of one SQL statement of a tool.")
    start_timeout_s: float = Field(30.0, gt=0, description="Time for the embedded Postgres to start.")
    stop_timeout_s: float = Field(10.0, gt=0, description="Time for the embedded Postgres to stop before it is forced.")
    uid: int = Field(699_999, gt=0, description="As root: user id that the embedded Postgres runs as.")


class ModelSettings(_Group):
    name: str = Field("gpt-4.1", description="Model that the agent asks for.")
    timeout_s: float = Field(60.0, gt=0, description="Time of one request to the model.")
    retries: int = Field(2, ge=0, description="Repeats of a request that failed in transport or with 429/5xx.")
    max_output_tokens: int = Field(4096, ge=64, description="Tokens of one reply.")
    price_input: float = Field(2.0, ge=0, description="US dollars per million input tokens.")
    price_cached: float = Field(0.5, ge=0, description="US dollars per million cached input tokens.")
    price_output: float = Field(8.0, ge=0, description="US dollars per million output tokens.")


class AgentSettings(_Group):
    mode: Literal["cells", "direct"] = Field("cells", description="Cells in a kernel, or direct tool calls.")
    max_steps: int = Field(12, gt=0, description="Requests to the model in one turn.")
    max_tokens: int = Field(200_000, gt=0, description="Input and output tokens of one turn.")
    max_seconds: float = Field(180.0, gt=0, description="Wall time of one turn.")
    max_dollars: float = Field(1.0, gt=0, description="Cost of one turn at the model's prices.")
    max_bad_replies: int = Field(3, gt=0, description="Unusable model replies in a row that end a turn.")
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
        ),
        description="Tools whose stubs stand in the prompt; cells find the others by `servers.search`.",
    )


class ShopSettings(_Group):
    url: HttpUrl = Field(description="The WooCommerce store, such as https://shop.example.com.")
    consumer_key: SecretStr = Field(description="REST API key (ck_...).")
    consumer_secret: SecretStr = Field(description="REST API secret (cs_...).")
    timeout_s: float = Field(20.0, gt=0, description="Time of one request to the store.")


class TenantSettings(_Group):
    shop: ShopSettings | None = Field(None, description="The tenant's store; None: no store tools.")
    token: SecretStr | None = Field(None, description="Access token that reaches this tenant alone.")
    policy_file: Path | None = Field(None, description="Text file with the shop's policy, put into the agent's prompt.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, populate_by_name=True
    )

    data_dir: Path = Field(Path(".omniops"), description="Everything that is kept: database, transcripts, token.")
    runtime_dir: Path | None = Field(
        None, description="Sockets of running kernels; a short path. None: a folder of this user's in /tmp."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("database_url", "OMNIOPS_DATABASE_URL", "DATABASE_URL"),
        description="Postgres with pgvector. None: one is started in data_dir.",
    )
    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("openai_api_key", "OMNIOPS_OPENAI_API_KEY", "OPENAI_API_KEY"),
        description="Key of the model's endpoint.",
    )
    openai_base_url: HttpUrl | None = Field(
        None,
        validation_alias=AliasChoices("openai_base_url", "OMNIOPS_OPENAI_BASE_URL", "OPENAI_BASE_URL"),
        description="Any OpenAI-compatible endpoint. None: OpenAI.",
    )
    server: ServerSettings = ServerSettings()
    client: ClientSettings = ClientSettings()
    pool: PoolSettings = PoolSettings()
    docker: DockerSettings = DockerSettings()
    cell: CellSettings = CellSettings()
    broker: BrokerSettings = BrokerSettings()
    database: DatabaseSettings = DatabaseSettings()
    model: ModelSettings = ModelSettings()
    agent: AgentSettings = AgentSettings()
    tenants: dict[str, TenantSettings] = Field(
        default_factory=dict, description="One entry per tenant (shop), by name."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _config_file())


def load_settings(**overrides: Any) -> Settings:
    """The settings from arguments, environment and file. Overrides of None are left out.

    Raises:
        SettingsError: naming every problem, and no secret's value.
    """
    file = _config_file()
    if PREFIX + "CONFIG" in os.environ and not file.is_file():
        raise SettingsError([f"{PREFIX}CONFIG names {file}, which is no file."])
    problems = explain_variables(os.environ, Settings, PREFIX)
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        problems += explain(error, Settings, PREFIX, str(file))
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{file} is no TOML: {error}.")
    except pydantic_settings.SettingsError as error:
        problems.append(explain_json(str(error), os.environ, PREFIX))
    except OSError as error:
        problems.append(f"{file} cannot be read: {error.strerror}.")
    if problems:
        raise SettingsError(problems) from None
    return settings


def _config_file() -> Path:
    return Path(os.environ.get(PREFIX + "CONFIG", "omniops.toml"))
