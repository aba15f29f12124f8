"""Settings of kernels, the pool that keeps them, and the cells that run in them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .settings_group import Group

#: A part of the path of unix sockets, which is short.
ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,15}$")]


class ProfileSettings(Group):
    enabled: bool = Field(True, description="False takes away a profile that comes with the product.")
    display_name: str | None = Field(None, description="What people see. None: made from the name.")
    kernel: Literal["forked", "stock"] | None = Field(
        None, description="None or forked: from a warm template; stock: ipykernel as it comes, for debugger, subshells."
    )
    roles: tuple[Literal["agent", "analyst", "operator"], ...] | None = Field(
        None, description="Roles whose sessions get it unless they ask for another; the first such profile counts."
    )
    preload: tuple[str, ...] | None = Field(None, description="Modules loaded in advance. None: `pool.preload`.")
    minimum: int | None = Field(
        None, ge=0, description="Ready kernels in stock at least. None: `pool.warm`. 0: starts with its first lease."
    )
    maximum: int | None = Field(None, ge=0, description="In stock at most. None: `pool.warm_maximum`.")
    memory_mb: int | None = Field(None, gt=0, description="Memory of one kernel, MiB. None: `pool.memory_mb`.")
    disk_mb: int | None = Field(None, gt=0, description="Files of one kernel, MiB. None: `pool.disk_mb`.")
    processes: int | None = Field(None, gt=1, description="Processes and threads. None: `pool.processes`.")
    open_files: int | None = Field(None, ge=64, description="Open files of a process. None: `pool.open_files`.")
    cpus: float | None = Field(None, ge=0.01, description="Cores at a time. None: `pool.cpus`.")
    cpu_seconds: int | None = Field(None, gt=0, description="CPU time of a process. None: `pool.cpu_seconds`.")


class PoolSettings(Group):
    provisioner: Literal["auto", "local", "docker"] = Field(
        "auto",
        description="Where kernels run: in containers (group docker), in sandboxes of this machine's own, or auto: in "
        "the strongest that is set up.",
    )
    warm: int = Field(2, ge=0, description="Ready kernels kept in stock.")
    warm_maximum: int = Field(8, ge=0, description="Ready kernels kept in stock when demand is high.")
    maximum: int = Field(32, gt=0, description="Kernels that may live at once, leased ones of all profiles included.")
    tenant_maximum: int = Field(0, ge=0, description="Kernels that one tenant may have at once. 0: no quota.")
    exhaustion: Literal["wait", "start", "refuse"] = Field(
        "start", description="A lease that finds no ready kernel waits for the refill, has one started, or is refused."
    )
    profiles: dict[ProfileName, ProfileSettings] = Field(
        default_factory=dict, description="Kinds of kernels beside, or changes to, agent, analyst and stock."
    )
    preload: tuple[str, ...] = Field(
        ("numpy", "pandas", "pyarrow"), description="Modules that the template imports before it forks."
    )
    start_timeout_s: float = Field(30.0, gt=0, description="Time for a template or kernel to come up.")
    leases: int = Field(200, gt=0, description="Leases under way at once; more are refused at once.")
    lease_timeout_s: float = Field(30.0, gt=0, description="Time to wait for a free kernel.")
    orphan_grace_s: float = Field(300.0, ge=0, description="How long kernels outlive a gateway that went away.")
    on_stop: Literal["end", "keep"] = Field(
        "end", description="At an orderly stop kernels end, or live on for `orphan_grace_s` for the next gateway."
    )
    refill_starts: int = Field(1, gt=0, description="Kernels that start at once to fill the stock.")
    lease_starts: int = Field(4, gt=0, description="Kernels that start at once for leases that found none.")
    refill_quiet_s: float = Field(0.05, ge=0, description="A refill waits until there was no lease for this long.")
    refill_patience_s: float = Field(2.0, ge=0, description="But no longer than this.")
    demand_half_life_s: float = Field(60.0, gt=0, description="Demand counts half after this time without a lease.")
    ready_life_s: float = Field(3600.0, ge=0, description="A ready kernel of this age is replaced. 0: never.")
    life_s: float = Field(86_400.0, ge=0, description="A session's kernel of this age ends between cells. 0: never.")
    probe_interval_s: float = Field(30.0, ge=0, description="Seconds between two probes of an idle kernel. 0: never.")
    probe_timeout_s: float = Field(5.0, gt=0, description="Time to answer one.")
    probe_failures: int = Field(3, gt=0, description="Missing answers in a row that end a session's kernel.")
    freeze_after_s: float = Field(60.0, ge=0, description="Kernels idle for this long get no CPU till used. 0: never.")
    renew_interval_s: float = Field(
        0.0, ge=0, description="Seconds between two looks whether image, code or preloads are newer. 0: never."
    )
    watch_interval_s: float = Field(0.25, gt=0, description="Seconds between two looks of the memory watcher.")
    memory_mb: int = Field(512, gt=0, description="Memory of one kernel, MiB.")
    disk_mb: int = Field(128, gt=0, description="Files of one kernel, MiB (in memory).")
    processes: int = Field(64, gt=1, description="Processes and threads of one kernel.")
    open_files: int = Field(1024, ge=64, description="Open files of one process.")
    cpus: float = Field(1.0, ge=0.01, description="Cores that one kernel may use at a time (with cgroups).")
    cgroups: Literal["auto", "off", "require"] = Field(
        "auto", description="Cgroups for local kernels: where they can be had; never; or an error where they cannot."
    )
    cpu_seconds: int = Field(3600, gt=0, description="CPU time of each process of a kernel over its life.")
    uid_first: int = Field(700_000, gt=999, description="As root: first user id that kernels run as.")
    uid_count: int = Field(10_000, gt=0, description="As root: how many user ids kernels may use.")


class DockerSettings(Group):
    image: str = Field("omniops-sandbox", description="The sandbox image; `docker/build-image` makes it.")
    runtime: Literal["auto", "runc", "runsc"] = Field(
        "auto", description="runsc: gVisor, a kernel of its own in between; auto: that where Docker has it, else runc."
    )
    host: str | None = Field(None, description="Address of the daemon. None: DOCKER_HOST, or the usual socket.")


class CellSettings(Group):
    deadline_s: float = Field(60.0, gt=0, description="Wall time of a cell; then it is interrupted.")
    long_deadline_s: float = Field(
        86_400.0, gt=0, description="The most that sessions of analysts and operators may ask for, for long work."
    )
    interrupt_grace_s: float = Field(5.0, gt=0, description="Time to stop after that; then its kernel is killed.")
    code_kb: int = Field(256, gt=0, description="Largest cell, KiB.")
    output_mb: int = Field(
        10, gt=0, description="Output of a cell that is in its line of the record, MiB. What is more is in a file."
    )
    output_flood_mb: int = Field(2048, gt=0, description="Output after which a cell is interrupted, MiB.")
    envelope_tokens: int = Field(2000, gt=100, description="Tokens of a cell's envelope to the model.")
    queue: int = Field(16, ge=0, description="Cells of one session that may wait for the one that runs.")
    idle_s: float = Field(1800.0, gt=0, description="After this time without a cell a session's kernel is taken.")


class FileSettings(Group):
    largest_mb: int = Field(
        512, gt=0, description="Largest file that is put into a session's work folder, or had from it, MiB."
    )
    patience_s: float = Field(
        30.0, gt=0, description="Time that a kernel gets to answer about one piece of a file (1 MiB)."
    )


class CheckSettings(Group):
    mode: Literal["off", "advise", "enforce"] = Field(
        "enforce",
        description="What a check before a cell runs may do: nothing; tell what it found; or stop a cell that cannot "
        "go well.",
    )
    code_kb: int = Field(64, gt=0, description="Larger cells run unchecked, KiB: they are mostly data.")
    timeout_s: float = Field(2.0, gt=0, description="Time for one check; after it the cell runs unchecked.")
    start_timeout_s: float = Field(30.0, gt=0, description="Time for the first checker to get ready, at the start.")
    processes: int = Field(2, gt=0, description="Checks at once, each in a process of its own.")
    memory_mb: int = Field(2048, gt=0, description="Address space of one such process, MiB.")
    history_kb: int = Field(64, ge=0, description="Code of a session's earlier cells that types are taken from, KiB.")
