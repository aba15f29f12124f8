"""Settings of what one person is given of their data, and of erasing it."""

from __future__ import annotations

from pydantic import Field, HttpUrl

from .settings_group import Group


class GdprSettings(Group):
    link_s: float = Field(
        86_400.0, gt=0, description="How long the link to an export holds; then the file is removed, too."
    )
    largest_mb: int = Field(20_480, gt=0, description="Largest export file, MiB.")
    files: int = Field(10_000, ge=0, description="Files and folders of one open session of a person in an export.")
    public_url: HttpUrl | None = Field(
        None, description="Where people reach this gateway, for links. None: links are paths alone."
    )
    look_s: float = Field(
        60.0, gt=0, description="Time between two looks for expired files, and for erasures to go on with."
    )
    claim_s: float = Field(
        600.0, gt=0, description="After this time another gateway may go on with an erasure, of a gateway that hangs."
    )
