"""Settings of gateways that share a database."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, HttpUrl, SecretStr

from .settings_group import Group


class PeerSettings(Group):
    url: HttpUrl | None = Field(
        None, description="Where other gateways on the database reach this one. None: where it listens."
    )
    lease_s: float = Field(
        10.0, gt=0.1, description="A gateway that has not been heard of for so long loses its sessions to others."
    )
    connect_s: float = Field(2.0, gt=0, description="Time to reach another gateway.")
    secret: SecretStr | None = Field(
        None, description="By which gateways know each other's requests. None: one is made and kept in the database."
    )
    restore: bool = Field(
        True, description="A session that is taken over gets a new kernel, and its cells run again there, by itself."
    )
    mirror: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Records of sessions are in the database, too, for other gateways; auto: unless it is the "
        "embedded one.",
    )
