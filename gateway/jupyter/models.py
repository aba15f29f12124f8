"""What Jupyter's REST interface gives and takes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.jupyter.hub import Hub
from gateway.jupyter.kernels import USUAL, Away, kernel_id
from gateway.jupyter.rows import NotebookRow
from kernel_pool.types import Profile

#: Of ipykernel: what clients show beside a kernel's name.
LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")


class KernelModel(BaseModel):
    """A kernel."""

    id: str
    name: str
    last_activity: str
    execution_state: str
    connections: int

    @classmethod
    def of(cls, hub: Hub | Away) -> KernelModel:
        return cls(
            id=kernel_id(hub.about.session),
            name=hub.about.name,
            last_activity=stamp(hub.last_activity),
            execution_state=hub.state,
            connections=hub.connections,
        )


class NewKernel(BaseModel):
    """Which kernel. What is not known is ignored, as Jupyter's servers do."""

    model_config = ConfigDict(extra="ignore")

    name: str | None = Field(None, max_length=64)
    env: dict[str, str | int | float | bool | None] = Field({}, max_length=256)
    path: str | None = Field(None, max_length=1024)

    def variables(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.env.items() if value is not None}


class KernelChoice(NewKernel):
    """A kernel that is there, by its id, or a new one, by its name."""

    id: str | None = Field(None, max_length=64)


class DocumentName(BaseModel):
    """How old clients name a document."""

    model_config = ConfigDict(extra="ignore")

    path: str | None = Field(None, max_length=1024)
    name: str | None = Field(None, max_length=1024)


class SessionRequest(BaseModel):
    """What Jupyter calls a session: a document and its kernel. In a change, what is left out stays."""

    model_config = ConfigDict(extra="ignore")

    path: str | None = Field(None, max_length=1024)
    name: str | None = Field(None, max_length=1024)
    type: Literal["notebook", "console", "file"] | None = None
    kernel: KernelChoice | None = None
    notebook: DocumentName | None = None

    @property
    def document(self) -> str | None:
        """The path, wherever the client says it."""
        return self.path or (self.notebook.path if self.notebook else None)


class SessionModel(BaseModel):
    id: str
    path: str
    name: str
    type: str
    kernel: KernelModel | None
    notebook: dict[str, str]

    @classmethod
    def of(cls, row: NotebookRow, hub: Hub | Away) -> SessionModel:
        return cls(
            id=row.id,
            path=row.path,
            name=row.name,
            type=row.type,
            kernel=KernelModel.of(hub),
            notebook={"path": row.path, "name": row.name},
        )


def specs_of(specs: dict[str, Profile]) -> dict[str, Any]:
    """All kernelspecs, as clients want them."""
    return {"default": USUAL, "kernelspecs": {name: spec_of(name, profile) for name, profile in specs.items()}}


def spec_of(name: str, profile: Profile) -> dict[str, Any]:
    """One of them."""
    return {
        "name": name,
        "spec": {
            # shown, not run
            "argv": ["omniops", "kernel", profile.name],
            "env": {},
            "display_name": profile.display_name,
            "language": "python",
            "interrupt_mode": "message",
            "metadata": {"debugger": profile.kernel == "stock"},
        },
        "resources": {logo.rpartition(".")[0]: f"/kernelspecs/{name}/{logo}" for logo in LOGOS},
    }


def stamp(time: datetime) -> str:
    """A time in UTC as Jupyter's clients parse it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
