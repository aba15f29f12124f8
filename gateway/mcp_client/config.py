"""`.mcp.json`, as MCP clients have it: `{"mcpServers": {name: {command, args, env, cwd} | {type, url, headers}}}`.

`${VAR}` and `${VAR:-default}` come from the gateway's environment. Keys that others have put in are left alone.
"""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from gateway.credentials.known import REFERENCE
from gateway.settings import Settings

from .references import check_references
from .transports import Http as Http
from .transports import Kind
from .transports import Stdio as Stdio
from .transports import Transport as Transport

#: Variables whose values are no secret: they would take ordinary words out of results.
HARMLESS = frozenset({"HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER"})
#: What the gateway itself is configured by: no server gets it.
_OWN = re.compile(r"OMNIOPS_.*|DATABASE_URL|OPENAI_API_KEY")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SECRET_NAME = re.compile(r"(?i)key|token|secret|passw|auth|credential|cookie")

_KINDS: dict[str, Kind] = {
    "http": "http",
    "streamable-http": "http",
    "streamableHttp": "http",
    "streamable_http": "http",
    "sse": "sse",
}


class ConfigError(Exception):
    """The file cannot be used. The message says which, where and what to do, and holds no secret."""


@dataclass(frozen=True, eq=False)
class ServerConfig:
    """One server. `owner`: the tenant whose file has it; "" where it is everyone's."""

    owner: str
    #: As the file has it.
    name: str
    #: As cells import it: `servers.<module>`.
    module: str
    #: None where `problem` says why there is none.
    transport: Transport | None
    problem: str = ""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


class _Entry(msgspec.Struct):
    type: str = ""
    command: str = ""
    args: list[str] = []
    env: dict[str, str | int | float | bool] = {}
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    disabled: bool = False


class _File(msgspec.Struct):
    servers: dict[str, msgspec.Raw] = msgspec.field(name="mcpServers")


def read_config(path: Path, owner: str, environment: Mapping[str, str]) -> tuple[ServerConfig, ...]:
    """The servers of one file. What is wrong with one of them is its own `problem`.

    Raises:
        ConfigError: the file cannot be read, or two of its servers become one module.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f'{path} is no {{"mcpServers": {{...}}}}: {error}.') from None
    found: dict[str, ServerConfig] = {}
    for name, raw in file.servers.items():
        made = _server(name, raw, path, owner, environment)
        if made is None:
            continue
        other = found.setdefault(made.module, made)
        if other is not made:
            raise ConfigError(
                f"{path}: the servers {other.name!r} and {name!r} both become servers.{made.module}: rename one."
            )
    return tuple(found.values())


def read_configs(settings: Settings, taken: Container[str]) -> tuple[ServerConfig, ...]:
    """The servers of all tenants and of each. `taken`: names of built-in servers.

    Raises:
        ConfigError: a file cannot be used, or two servers would be one module.
    """
    files = [("", settings.mcp.file)] if settings.mcp.file else []
    files += [(name, one.mcp_file) for name, one in sorted(settings.tenants.items()) if one.mcp_file]
    found: list[ServerConfig] = []
    for owner, path in files:
        for made in read_config(path, owner, os.environ):
            if made.module in taken:
                raise ConfigError(f"{path}: the product has a server {made.module!r} of its own: rename {made.name!r}.")
            if any(each.module == made.module and not each.owner for each in found):
                raise ConfigError(f"{path}: {settings.mcp.file} has a server {made.name!r} for all: rename this one.")
            found.append(made)
    return tuple(found)


def module_name(name: str) -> str:
    """The module that a server's name becomes: lower case, `_` for what an identifier cannot have."""
    made = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")[:40]
    if not made or made[0].isdigit() or keyword.iskeyword(made):
        made = f"mcp_{made}".rstrip("_")
    return made


def _server(name: str, raw: msgspec.Raw, path: Path, owner: str, environment: Mapping[str, str]) -> ServerConfig | None:
    module = module_name(name)
    expand = _Expansion(environment)
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
        if entry.disabled:
            return None
        transport = _transport(entry, path.parent, expand)
        check_references(transport, owner)
    except (msgspec.DecodeError, ValueError) as error:
        return ServerConfig(owner, name, module, None, f"{path.name}: {str(error).rstrip('.')}.")
    return ServerConfig(owner, name, module, transport, secrets=frozenset(expand.secrets))


def _transport(entry: _Entry, folder: Path, expand: _Expansion) -> Transport:
    """Raises ValueError: what is missing or wrong."""
    if entry.type not in ("", "stdio", *_KINDS):
        raise ValueError(f"the type {entry.type[:40]!r} is not known: stdio, http or sse")
    if bool(entry.command) == bool(entry.url) or (entry.type == "stdio" and entry.url):
        raise ValueError("a server has either `command` (a program) or `url` (an endpoint)")
    if entry.command:
        if entry.type in _KINDS:
            raise ValueError(f"a server of type {entry.type!r} has a `url`")
        env = {key: expand(str(value), secret=bool(_SECRET_NAME.search(key))) for key, value in entry.env.items()}
        args = tuple(expand(each) for each in entry.args)
        cwd = folder / expand(entry.cwd) if entry.cwd else folder
        transport = Stdio(expand(entry.command), args, env, str(cwd.resolve()))
        if any("\0" in text for text in (transport.command, *args, *env, *env.values())):
            raise ValueError("a NUL character in command, args or env")
        return transport
    url = expand(entry.url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("`url` is not an http or https address")
    expand.note(parts.password or "")
    headers = {key: expand(value, secret=True) for key, value in entry.headers.items()}
    if any(not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", key) for key in headers) or any(
        re.search(r"[\r\n\0]", value) for value in headers.values()
    ):
        raise ValueError("`headers` has one that HTTP does not allow")
    return Http(url, headers, _KINDS.get(entry.type, "auto"))


class _Expansion:
    """Puts variables in, and remembers the secrets among them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.secrets: set[str] = set()

    def __call__(self, text: str, *, secret: bool = False) -> str:
        """Raises ValueError naming a variable that is not set."""
        expanded = _VARIABLE.sub(self._value, text)
        if secret and REFERENCE not in text:
            self.note(expanded)
            self.note(re.sub(r"(?i)^(basic|bearer|token)\s+", "", expanded))
        return expanded

    def note(self, value: str) -> None:
        if value:
            self.secrets.add(value)

    def _value(self, match: re.Match[str]) -> str:
        name, default = match.groups()
        if _OWN.fullmatch(name):
            raise ValueError(f"${{{name}}} is the gateway's own and is given to no server")
        value = self._environment.get(name, "")
        if not value and default is None and name not in self._environment:
            raise ValueError(f"{name} is not set in the gateway's environment")
        if value and name not in HARMLESS:
            self.secrets.add(value)
        return value or default or ""
