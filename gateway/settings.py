"""Every limit, time-out and path, in one typed place.

Values come from (first wins): arguments, environment variables `OMNIOPS_<NAME>` (nested: `OMNIOPS_POOL__WARM`), a
TOML file named by `OMNIOPS_CONFIG` (default `omniops.toml` in the working directory). `DATABASE_URL`,
`OPENAI_API_KEY` and `OPENAI_BASE_URL` are read under their usual names. `docs/configuration.md` holds the table.
The larger groups have modules of their own, `settings_kernels` and so on; all names are had from here.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

import pydantic_settings
from pydantic import AliasChoices, Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from .settings_agent import AgentSettings, ModelSettings
from .settings_approvals import ApprovalSettings, ApproverSettings, WriteCaps
from .settings_calls import BrokerSettings, FindingSettings, McpSettings, ObservingSettings
from .settings_errors import explain, explain_json, explain_variables
from .settings_front import ChatApiSettings, McpServerSettings
from .settings_gdpr import GdprSettings
from .settings_group import Group
from .settings_identity import IdentitySettings, JwtSettings, LimitSettings
from .settings_jupyter import JupyterSettings
from .settings_kernels import CellSettings, CheckSettings, DockerSettings, FileSettings, PoolSettings, ProfileSettings
from .settings_operations import MetricsSettings, ReadySettings, SavingsSettings, TracingSettings
from .settings_peers import PeerSettings
from .settings_schedules import ScheduleSettings, SchedulingSettings
from .settings_scraping import EndpointSettings, ScrapingSettings
from .settings_tenants import ShopSettings, SupabaseSettings, TenantSettings
from .settings_transcripts import TranscriptSettings

__all__ = [
    "PREFIX",
    "AgentSettings",
    "ApprovalSettings",
    "ApproverSettings",
    "BrokerSettings",
    "CellSettings",
    "ChatApiSettings",
    "CheckSettings",
    "ClientSettings",
    "CredentialSettings",
    "DatabaseSettings",
    "DockerSettings",
    "EndpointSettings",
    "FileSettings",
    "FindingSettings",
    "GdprSettings",
    "IdentitySettings",
    "JupyterSettings",
    "JwtSettings",
    "LimitSettings",
    "McpServerSettings",
    "McpSettings",
    "MetricsSettings",
    "ModelSettings",
    "ObservingSettings",
    "PeerSettings",
    "PoolSettings",
    "ProfileSettings",
    "ReadySettings",
    "SavingsSettings",
    "ScheduleSettings",
    "SchedulingSettings",
    "ScrapingSettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "ShopSettings",
    "SupabaseSettings",
    "TenantSettings",
    "TracingSettings",
    "TranscriptSettings",
    "WriteCaps",
    "load_settings",
]

PREFIX = "OMNIOPS_"


class SettingsError(Exception):
    """Settings are wrong or missing. `problems` has a paragraph for each: which, what it wants, where to set it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(["The configuration cannot be used:", *(f"- {problem}" for problem in problems)]))
        self.problems = tuple(problems)


class ServerSettings(Group):
    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    port: int = Field(8765, ge=0, le=65535, description="Port; 0 takes a free one.")
    token: SecretStr | None = Field(None, description="Access token. None: one is made at the first start and kept.")
    max_request_mb: int = Field(8, gt=0, description="Largest request body, MiB.")
    heartbeat_s: float = Field(15.0, gt=0, description="Seconds between two signs of life on a quiet event stream.")
    proxies: tuple[str, ...] = Field(
        (),
        description="Addresses of reverse proxies: their word (X-Forwarded-For) is taken for where a client is. Empty: "
        "nobody's is.",
    )
    shutdown_grace_s: float = Field(10.0, gt=0, description="Time that running cells get at a stop.")
    drain_s: float = Field(
        0.0, ge=0, description="At a stop, how long at least the port stays open, saying 503: for balancers to see it."
    )
    requests: int = Field(512, gt=0, description="Requests under way at once, event streams included; more get 503.")
    websockets: int = Field(2000, gt=0, description="Websockets open at once; more get 503.")
    connections: int = Field(4000, gt=0, description="Connections open at once; more are closed.")
    unread_mb: int = Field(
        16, gt=0, description="Texts that may wait for a client of an event stream, Mi characters; more are left out."
    )
    head_s: float = Field(20.0, gt=0, description="Time for a client to send a request's head; then it is cut off.")
    body_s: float = Field(60.0, gt=0, description="Time for it to send the body; then it gets 408.")
    message_s: float = Field(60.0, gt=0, description="Time for a websocket's message to come whole; then it is closed.")


class ClientSettings(Group):
    url: HttpUrl | None = Field(None, description="Gateway that the command line asks. None: the one on data_dir.")
    token: SecretStr | None = Field(None, description="Its access token.")


class DatabaseSettings(Group):
    pool_size: int = Field(8, gt=0, description="Connections of one gateway.")
    connect_timeout_s: float = Field(20.0, gt=0, description="Time to reach the database at start.")
    away_s: float = Field(20.0, ge=0, description="How long calls wait for a database that is away, to journal.")
    statement_timeout_s: float = Field(30.0, gt=0, description="Time of one SQL statement of a tool.")
    start_timeout_s: float = Field(30.0, gt=0, description="Time for the embedded Postgres to start.")
    stop_timeout_s: float = Field(10.0, gt=0, description="Time for the embedded Postgres to stop before it is forced.")
    uid: int = Field(699_999, gt=0, description="As root: user id that the embedded Postgres runs as.")


class CredentialSettings(Group):
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
    log_format: Literal["text", "json"] = Field("text", description="For people, or a JSON object a line for programs.")
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
    files: FileSettings = FileSettings()
    jupyter: JupyterSettings = JupyterSettings()
    check: CheckSettings = CheckSettings()
    broker: BrokerSettings = BrokerSettings()
    finding: FindingSettings = FindingSettings()
    observing: ObservingSettings = ObservingSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    database: DatabaseSettings = DatabaseSettings()
    transcripts: TranscriptSettings = TranscriptSettings()
    gdpr: GdprSettings = GdprSettings()
    credentials: CredentialSettings = CredentialSettings()
    peers: PeerSettings = PeerSettings()
    identity: IdentitySettings = IdentitySettings()
    limits: LimitSettings = LimitSettings()
    mcp: McpSettings = McpSettings()
    metrics: MetricsSettings = MetricsSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    savings: SavingsSettings = SavingsSettings()
    ready: ReadySettings = ReadySettings()
    tracing: TracingSettings = TracingSettings()
    model: ModelSettings = ModelSettings()
    agent: AgentSettings = AgentSettings()
    chat_api: ChatApiSettings = ChatApiSettings()
    mcp_server: McpServerSettings = McpServerSettings()
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
