"""Settings of the copy of a store (docs/sync.md)."""

from __future__ import annotations

from pydantic import Field

from .settings_group import Group


class SyncSettings(Group):
    page_size: int = Field(100, ge=2, le=100, description="Objects asked for at once; fewer where the store fails.")
    page_bytes: int = Field(4 << 20, gt=0, description="Bytes of one answer; beyond it fewer objects are asked for.")
    object_bytes: int = Field(1 << 20, gt=0, description="Bytes of one object; beyond it it is reported and left out.")
    variations: int = Field(2000, gt=0, description="Variations that one product may have.")
    patience_s: float = Field(45.0, ge=0, description="Time that one read waits for a store that is away or busy.")
    deleted_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of what is stored that a sync may delete; beyond it the store is not believed.",
    )
    deleted_always: int = Field(10, ge=0, description="So few are deleted whatever their share.")
    full_pass_hours: float = Field(24.0, ge=0, description="Hours after which all is read and what is gone is deleted.")
    resume_hours: float = Field(24.0, ge=0, description="Hours after which a stopped sync begins anew.")
