"""The two ways to a server, as its configuration has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

Kind = Literal["auto", "http", "sse"]


@dataclass(frozen=True)
class Stdio:
    """A program of this machine's."""

    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None

    @property
    def shown(self) -> str:
        return f"stdio: {Path(self.command).name}"


@dataclass(frozen=True)
class Http:
    """An endpoint. `auto`: streamable HTTP, or the older SSE where the endpoint does not know that."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    kind: Kind = "auto"

    @property
    def shown(self) -> str:
        """Without query and credentials."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{'sse' if self.kind == 'sse' else 'http'}: {parts.scheme}://{parts.hostname}{port}{parts.path}"


Transport: TypeAlias = Stdio | Http
