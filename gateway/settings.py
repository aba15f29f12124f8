"""Every limit, time-out and path, in one typed place.

Values come from (first wins): arguments, environment variables `OMNIOPS_<NAME>` (nested: `OMNIOPS_POOL__WARM`), a
TOML file named by `OMNIOPS_CONFIG` (default `omniops.toml` in the working directory). `DATABASE_URL`,
`OPENAI_API_KEY` and `OPENAI_BASE_URL` are read under their usual names. `docs/configuration.md` holds the table.
"""

from __future__ import annotations

import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic_settings
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
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


#: A part of the path of unix sockets, which is short.
ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,15}$")]


class ProfileSettings(_Group):
    enabled: bool = Field(True, description="False takes away a profile that comes with the product.")
    display_name: str | None = Field(None, description="What people see. None: made from the name.")
    kernel: Literal["forked", "stock"] | None = Field(
        None, description="None or forked: from a warm template; stock: ipykernel as it comes, for debugger, subshells."
    )
    roles: tuple[Literal["agent", "analyst", "operator"], ...] | None = Field(
        None, description="Roles whose sessions get it unless they ask for another; the first such profile counts."
    )
    preload: tuple[str, ...] | None = Field(None, description="Modules loaded in advance. None: `pool.preload`.")
    minimum: int | None = Field(
        None, ge=0, description="Ready kernels in stock at least. None: `pool.warm`. 0: starts with its first lease."
    )
    maximum: int | None = Field(None, ge=0, description="In stock at most. None: `pool.warm_maximum`.")
    memory_mb: int | None = Field(None, gt=0, description="Memory of one kernel, MiB. None: `pool.memory_mb`.")
    disk_mb: int | None = Field(None, gt=0, description="Files of one kernel, MiB. None: `pool.disk_mb`.")
    processes: int | None = Field(None, gt=1, description="Processes and threads. None: `pool.processes`.")
    open_files: int | None = Field(None, ge=64, description="Open files of a process. None: `pool.open_files`.")
    cpus: float | None = Field(None, ge=0.01, description="Cores at a time. None: `pool.cpus`.")
    cpu_seconds: int | None = Field(None, gt=0, description="CPU time of a process. None: `pool.cpu_seconds`.")


class PoolSettings(_Group):
    provisioner: Literal["auto", "local", "docker"] = Field(
        "auto",
        description="Where kernels run: in containers (group docker), in sandboxes of this machine's own, or auto: in "
        "the strongest that is set up.",
    )
    warm: int = Field(2, ge=0, description="Ready kernels kept in stock.")
    warm_maximum: int = Field(8, ge=0, description="Ready kernels kept in stock when demand is high.")
    maximum: int = Field(32, gt=0, description="Kernels that may live at once, leased ones of all profiles included.")
    tenant_maximum: int = Field(0, ge=0, description="Kernels that one tenant may have at once. 0: no quota.")
    exhaustion: Literal["wait", "start", "refuse"] = Field(
        "start", description="A lease that finds no ready kernel waits for the refill, has one started, or is refused."
    )
    profiles: dict[ProfileName, ProfileSettings] = Field(
        default_factory=dict, description="Kinds of kernels beside, or changes to, agent, analyst and stock."
    )
    preload: tuple[str, ...] = Field(
        ("numpy", "pandas", "pyarrow"), description="Modules that the template imports before it forks."
    )
    start_timeout_s: float = Field(30.0, gt=0, description="Time for a template or kernel to come up.")
    lease_timeout_s: float = Field(30.0, gt=0, description="Time to wait for a free kernel.")
    orphan_grace_s: float = Field(300.0, ge=0, description="How long kernels outlive a gateway that went away.")
    on_stop: Literal["end", "keep"] = Field(
        "end", description="At an orderly stop kernels end, or live on for `orphan_grace_s` for the next gateway."
    )
    refill_starts: int = Field(1, gt=0, description="Kernels that start at once to fill the stock.")
    lease_starts: int = Field(4, gt=0, description="Kernels that start at once for leases that found none.")
    refill_quiet_s: float = Field(0.05, ge=0, description="A refill waits until there was no lease for this long.")
    refill_patience_s: float = Field(2.0, ge=0, description="But no longer than this.")
    demand_half_life_s: float = Field(60.0, gt=0, description="Demand counts half after this time without a lease.")
    ready_life_s: float = Field(3600.0, ge=0, description="A ready kernel of this age is replaced. 0: never.")
    life_s: float = Field(86_400.0, ge=0, description="A session's kernel of this age ends between cells. 0: never.")
    probe_interval_s: float = Field(30.0, ge=0, description="Seconds between two probes of an idle kernel. 0: never.")
    probe_timeout_s: float = Field(5.0, gt=0, description="Time to answer one.")
    probe_failures: int = Field(3, gt=0, description="Missing answers in a row that end a session's kernel.")
    freeze_after_s: float = Field(60.0, ge=0, description="Kernels idle for this long get no CPU till used. 0: never.")
    renew_interval_s: float = Field(
        0.0, ge=0, description="Seconds between two looks whether image, code or preloads are newer. 0: never."
    )
    watch_interval_s: float = Field(0.25, gt=0, description="Seconds between two looks of the memory watcher.")
    memory_mb: int = Field(512, gt=0, description="Memory of one kernel, MiB.")
    disk_mb: int = Field(128, gt=0, description="Files of one kernel, MiB (in memory).")
    processes: int = Field(64, gt=1, description="Processes and threads of one kernel.")
    open_files: int = Field(1024, ge=64, description="Open files of one process.")
    cpus: float = Field(1.0, ge=0.01, description="Cores that one kernel may use at a time (with cgroups).")
    cgroups: Literal["auto", "off", "require"] = Field(
        "auto", description="Cgroups for local kernels: where they can be had; never; or an error where they cannot."
    )
    cpu_seconds: int = Field(3600, gt=0, description="CPU time of each process of a kernel over its life.")
    uid_first: int = Field(700_000, gt=999, description="As root: first user id that kernels run as.")
    uid_count: int = Field(10_000, gt=0, description="As root: how many user ids kernels may use.")


class DockerSettings(_Group):
    image: str = Field("omniops-sandbox", description="The sandbox image; `docker/build-image` makes it.")
    runtime: Literal["auto", "runc", "runsc"] = Field(
        "auto", description="runsc: gVisor, a kernel of its own in between; auto: that where Docker has it, else runc."
    )
    host: str | None = Field(None, description="Address of the daemon. None: DOCKER_HOST, or the usual socket.")


class CellSettings(_Group):
    deadline_s: float = Field(60.0, gt=0, description="Wall time of a cell; then it is interrupted.")
    interrupt_grace_s: float = Field(5.0, gt=0, description="Time to stop after that; then its kernel is killed.")
    code_kb: int = Field(256, gt=0, description="Largest cell, KiB.")
    output_mb: int = Field(10, gt=0, description="Output kept of a cell, MiB.")
    output_flood_mb: int = Field(100, gt=0, description="Output after which a cell is interrupted, MiB.")
    envelope_tokens: int = Field(2000, gt=100, description="Tokens of a cell's envelope to the model.")
    queue: int = Field(16, ge=0, description="Cells of one session that may wait for the one that runs.")
    idle_s: float = Field(1800.0, gt=0, description="After this time without a cell a session's kernel is taken.")


class CheckSettings(_Group):
    mode: Literal["off", "advise", "enforce"] = Field(
        "enforce",
        description="What a check before a cell runs may do: nothing; tell what it found; or stop a cell that cannot "
        "go well.",
    )
    code_kb: int = Field(64, gt=0, description="Larger cells run unchecked, KiB: they are mostly data.")
    timeout_s: float = Field(2.0, gt=0, description="Time for one check; after it the cell runs unchecked.")
    start_timeout_s: float = Field(30.0, gt=0, description="Time for the first checker to get ready, at the start.")
    processes: int = Field(2, gt=0, description="Checks at once, each in a process of its own.")
    memory_mb: int = Field(2048, gt=0, description="Address space of one such process, MiB.")
    history_kb: int = Field(64, ge=0, description="Code of a session's earlier cells that types are taken from, KiB.")


class BrokerSettings(_Group):
    calls_per_cell: int = Field(1000, gt=0, description="Tool calls in one cell.")
    calls_per_session: int = Field(10_000, gt=0, description="Tool calls in one session.")
    concurrent_calls: int = Field(16, gt=0, description="Tool calls of one session under way at once.")
    connections: int = Field(64, gt=0, description="Connections of one sandbox to its broker socket.")
    call_timeout_s: float = Field(60.0, gt=0, description="Wall time of one tool call.")
    concurrent_streams: int = Field(8, gt=0, description="Results of one session that stream at once.")
    seconds_per_cell: float = Field(600.0, gt=0, description="Time of all tool calls of one cell, added up.")
    seconds_per_session: float = Field(36_000.0, gt=0, description="Time of all tool calls of one session, added up.")
    rows_per_cell: int = Field(20_000_000, gt=0, description="Rows in the results of one cell's tool calls together.")
    rows_per_session: int = Field(200_000_000, gt=0, description="Rows in the results of one session's tool calls.")
    dollars_per_cell: float = Field(1.0, gt=0, description="What one cell's tool calls may cost, as tools say it.")
    dollars_per_session: float = Field(10.0, gt=0, description="What one session's tool calls may cost.")
    request_mb: int = Field(16, gt=0, le=16, description="Largest request frame from a kernel, MiB.")
    request_values: int = Field(200_000, gt=0, description="Values in the arguments of one call, nested ones included.")
    result_mb: int = Field(16, gt=0, le=256, description="Largest result of one tool call, or part of a stream, MiB.")
    cell_mb: int = Field(256, gt=0, description="Arguments and results of one cell's tool calls together, MiB.")
    session_mb: int = Field(4096, gt=0, description="Arguments and results of one session's tool calls together, MiB.")
    entered_after_s: float = Field(0.02, ge=0, description="A read that takes longer is journaled before it is over.")
    journal_s: float = Field(10.0, gt=0, description="How long a write, or a cell's end, waits for the rows of reads.")
    looks_per_second: int = Field(
        100, gt=0, description="Questions of one session about tools (imports, search) in a second; more of them wait."
    )
    look_mb: int = Field(8, gt=0, le=256, description="Largest answer to one question about tools, MiB.")
    stall_s: float = Field(30.0, gt=0, description="Time for a kernel to send the rest of a frame or take an answer.")
    settle_s: float = Field(5.0, ge=0, description="How long the end of a cell waits for writes under way.")


class ObservingSettings(_Group):
    enabled: bool = Field(True, description="Learn return types of foreign tools that declare none from their results.")
    results: int = Field(1000, gt=0, description="Results of one tool and tenant that are learned from.")
    pause_s: float = Field(1.0, ge=0, description="What comes within this time is written at once.")
    waiting: int = Field(100, gt=0, description="Results waiting to be looked at; further ones are not learned from.")
    depth: int = Field(8, gt=0, le=20, description="Levels of a result that are kept.")
    keys: int = Field(60, gt=0, description="Keys of an object; one with more counts as a map.")
    items: int = Field(50, gt=0, description="Items of a list, and of a map, that are looked at.")
    values: int = Field(5_000, gt=0, description="Values of one result that are looked at.")


class WriteCaps(_Group):
    """Writes within these run by themselves; past one of them a person is asked."""

    amount: Decimal | None = Field(
        None, ge=0, description="Money that one write may move, in the shop's currency. None: as much as the tool lets."
    )
    per_session_hour: int = Field(100, ge=0, description="Writes of one session in an hour. 0: each is asked.")
    per_tenant_hour: int = Field(1000, ge=0, description="Writes of all sessions of the tenant and role in an hour.")
    irreversible: Literal["run", "ask"] = Field("run", description="Writes that nothing undoes: run, or ask.")


class ApproverSettings(_Group):
    token: SecretStr = Field(description="Access token of this person; it is for approvals alone.")
    tenants: tuple[str, ...] = Field((), description="Tenants whose calls the person decides about. Empty: all.")


class ApprovalSettings(_Group):
    hold_s: float = Field(120.0, ge=0, description="How long a call waits for a person before its cell is paused.")
    hold_chat_s: float = Field(0.0, ge=0, description="The same in sessions of role agent, where a customer waits.")
    expires_s: float = Field(604_800.0, gt=0, description="How long a request, and what was approved, holds good.")
    pending: int = Field(50, gt=0, description="Requests of one session that may wait at once.")
    batch_calls: int = Field(200, gt=0, description="Calls of one batch.")
    preview_s: float = Field(10.0, gt=0, description="Time to look up what a call would change.")
    look_s: float = Field(1.0, gt=0, description="Seconds between two looks for what was decided at other gateways.")
    claim_s: float = Field(30.0, gt=0, description="A gateway that died while it ran a cell again is waited for.")
    elsewhere_s: float = Field(10.0, ge=0, description="A session's own gateway has this long to run its cell again.")
    own_sessions: bool = Field(False, description="People may decide about what sessions of their own token ask.")
    tenant_tokens: bool = Field(False, description="A tenant's access token decides about the tenant's calls, too.")
    writes: WriteCaps = WriteCaps()
    roles: dict[Literal["agent", "analyst", "operator"], WriteCaps] = Field(
        default_factory=dict, description="Other caps for sessions of a role, in place of `approvals.writes`."
    )
    approvers: dict[str, ApproverSettings] = Field(
        default_factory=dict, description="People who decide, by name; the server's own token does, too."
    )


class DatabaseSettings(_Group):
    pool_size: int = Field(8, gt=0, description="Connections of one gateway.")
    connect_timeout_s: float = Field(20.0, gt=0, description="Time to reach the database at start.")
    away_s: float = Field(20.0, ge=0, description="How long calls wait for a database that is away, to journal.")
    statement_timeout_s: float = Field(30.0, gt=0, description="Time of one SQL statement of a tool.")
    start_timeout_s: float = Field(30.0, gt=0, description="Time for the embedded Postgres to start.")
    stop_timeout_s: float = Field(10.0, gt=0, description="Time for the embedded Postgres to stop before it is forced.")
    uid: int = Field(699_999, gt=0, description="As root: user id that the embedded Postgres runs as.")


class CredentialSettings(_Group):
    key: SecretStr | None = Field(
        None,
        description="Base64 of the 32 bytes that tenants' credentials are encrypted with. Of several, separated by "
        "commas, the first encrypts, the others open what is older. None: `key_file`.",
    )
    key_file: Path | None = Field(
        None, description="File with the key, for its user alone; made at the first start. None: in data_dir."
    )
    refresh_s: float = Field(
        5.0, ge=0, description="How long a gateway may go on with a credential that another gateway has changed."
    )


class McpSettings(_Group):
    file: Path | None = Field(None, description="`.mcp.json` with MCP servers for all tenants. None: no such servers.")
    connect_s: float = Field(30.0, gt=0, description="Time for a server to start, greet and list its tools.")
    silence_s: float = Field(60.0, gt=0, description="Time of a call without a result or a sign of progress.")
    idle_s: float = Field(900.0, gt=0, description="After this time without a call a connection is closed.")
    backoff_s: float = Field(1.0, gt=0, description="Pause after a failed connection; it doubles from one to the next.")
    backoff_maximum_s: float = Field(300.0, gt=0, description="But is no longer than this.")
    stop_grace_s: float = Field(2.0, gt=0, description="Time for a stdio server to end before it is killed.")
    message_mb: int = Field(16, gt=0, description="Largest message of a server, MiB.")
    tools: int = Field(2000, gt=0, description="Tools that are taken of one server.")
    definition_kb: int = Field(128, gt=0, description="Largest definition of a tool, KiB.")
    connections: int = Field(64, gt=0, description="Connections to MCP servers at once, over all tenants.")
    watch_s: float = Field(5.0, gt=0, description="How soon what people decide at one gateway counts at the others.")


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
        ),
        description="Tools whose stubs stand in the prompt; cells find the others by `servers.search`.",
    )


class ShopSettings(_Group):
    url: HttpUrl = Field(description="The WooCommerce store, such as https://shop.example.com.")
    consumer_key: SecretStr = Field(description="REST API key (ck_...).")
    consumer_secret: SecretStr = Field(description="REST API secret (cs_...).")
    timeout_s: float = Field(20.0, gt=0, description="Time of one request to the store.")
    in_flight: int = Field(4, gt=0, description="Requests to the store under way at once.")
    requests_per_s: float = Field(50.0, gt=0, description="Requests to the store started per second.")
    webhook_secret: SecretStr | None = Field(
        None, description="Signs the store's webhooks, 32 characters or more. None: none can be made."
    )


class SupabaseSettings(_Group):
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


class TenantSettings(_Group):
    shop: ShopSettings | None = Field(None, description="The tenant's store; None: no store tools.")
    supabase: SupabaseSettings | None = Field(None, description="The tenant's own tables; None: none.")
    token: SecretStr | None = Field(None, description="Access token that reaches this tenant alone.")
    policy_file: Path | None = Field(None, description="Text file with the shop's policy, put into the agent's prompt.")
    mcp_file: Path | None = Field(None, description="`.mcp.json` with MCP servers of this tenant's own.")
    writes: WriteCaps | None = Field(None, description="Caps of this tenant's writes; None: as `approvals` has them.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, populate_by_name=True
    )

    data_dir: Path = Field(Path(".omniops"), description="Everything that is kept: database, transcripts, token.")
    runtime_dir: Path | None = Field(
        None, description="Sockets of running kernels; a short path. None: a folder of this user's in /tmp."
    )
    tools_dir: Path | None = Field(
        None, description="Folder with tool servers of your own, one folder each. None: only those of the product."
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
    check: CheckSettings = CheckSettings()
    broker: BrokerSettings = BrokerSettings()
    observing: ObservingSettings = ObservingSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    database: DatabaseSettings = DatabaseSettings()
    credentials: CredentialSettings = CredentialSettings()
    mcp: McpSettings = McpSettings()
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
