"""A tenant's project: where its tables are, and as whom they are asked. Made by the gateway alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .connections import Connections


@dataclass(frozen=True)
class SupabaseProject:
    """Either `database_url`, or `url` and `key`. Never logged, never sent to a kernel."""

    tenant: str
    connections: Connections = field(repr=False)
    #: Postgres itself: a login that may become `role` and nothing stronger.
    database_url: str = field(default="", repr=False)
    #: The project's API, its publishable (anon) key, and what signs the claims; without it requests go as `anon`.
    url: str = ""
    key: str = field(default="", repr=False)
    jwt_secret: str = field(default="", repr=False)
    #: The role that statements run as, and what row-level security finds in `request.jwt.claims`.
    role: str = "authenticated"
    claims: Mapping[str, str] = field(default_factory=dict)
    schemas: tuple[str, ...] = ("public",)
    #: Tables without row-level security that may be used all the same.
    open_tables: tuple[str, ...] = ()
    #: Tables and functions that conversations with customers may read.
    customer_may: tuple[str, ...] = ()
    #: Functions that may be called for their changes without asking a person.
    write_functions: tuple[str, ...] = ()
    match_function: str = "match_documents"
    statement_timeout_s: float = 15.0
    in_flight: int = 4
    result_mb: int = 16
    batch_rows: int = 500
