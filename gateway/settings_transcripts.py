"""Settings of what is kept of sessions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .settings_group import Group


class TranscriptSettings(Group):
    sync: bool = Field(True, description="What happened is on the disk before anybody is told. False: soon after.")
    notebook_kb: int = Field(64, ge=0, description="Notebooks up to this size are written after each cell, KiB.")
    notebook_after_s: float = Field(2.0, gt=0, description="Larger notebooks are written this long after a cell.")
    masked: tuple[Literal["email", "phone", "card", "iban"], ...] = Field(
        ("email", "phone", "card", "iban"),
        description="Personal data that notebooks and exports name instead of showing. The record keeps it.",
    )
    keep_days: int = Field(
        0, ge=0, description="Sessions that were not used for so many days are erased; 0: they are kept for ever."
    )
    session_mb: int = Field(
        8192, gt=0, description="Outputs of one session in files beside its record, MiB; then its cell is stopped."
    )
    tenant_mb: int = Field(32_768, gt=0, description="The same of one tenant, MiB.")
    free_mb: int = Field(512, ge=0, description="Left free by such files on the disk of the transcripts, MiB.")
