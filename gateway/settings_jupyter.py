"""Settings of what Jupyter clients may do."""

from __future__ import annotations

from pydantic import Field

from .settings_group import Group


class JupyterSettings(Group):
    tenant: str | None = Field(
        None, description="Whose kernels Jupyter clients with the server's own token start. None: the only tenant's."
    )
    deadline_s: float = Field(3600.0, gt=0, description="Wall time of a Jupyter client's cell; then it is interrupted.")
    message_mb: int = Field(16, gt=0, le=64, description="Largest message of a client, MiB.")
    unread_mb: int = Field(
        64, gt=0, description="What may wait for a client that reads slowly, MiB; then it is closed."
    )
    absent_mb: int = Field(16, gt=0, description="Messages kept for a client that is away, MiB; the oldest go first.")
    absent: int = Field(4, ge=0, description="Clients of one kernel that are away for which messages are kept.")
    queue: int = Field(1000, gt=0, description="Requests of one kernel's clients that may wait.")
    queue_mb: int = Field(64, gt=0, description="All of these together, MiB.")
    clients: int = Field(32, gt=0, description="Websockets of one kernel at once.")
