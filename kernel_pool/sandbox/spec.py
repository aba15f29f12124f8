"""What the host tells the launcher and the template: one JSON document, read from an inherited descriptor."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict, dataclass

#: Where things are inside the sandbox.
HOME = "/home/kernel"
IPC = "/ipc"
KERNELS = "/run/kernels"
BASE = "/opt/omniops"
FILES = f"{BASE}/files"
PACKAGES = f"{BASE}/packages"

#: The user that a kernel is inside its own user namespace.
KERNEL_USER = 1000

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")

#: Environment of every sandbox for the libraries in it.
LIBRARIES = {
    # one thread per library: two kernels that each take all cores are slower than two that take one
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # allocators that reserve address space in gigabytes would run into the limit on data
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    # buffers go back to the system when they are let go: what the allocator keeps counts as the kernel's memory
    "MALLOC_MMAP_THRESHOLD_": "262144",
    # read by the import, which may come before the fork
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


@dataclass(frozen=True)
class KernelLimits:
    """What one kernel may use; sizes in MiB, `cpu_seconds` per process."""

    memory_mb: int
    disk_mb: int
    processes: int
    open_files: int
    cpu_seconds: int


@dataclass(frozen=True)
class SandboxSpec:
    """One template with its sandbox. Paths are the host's."""

    #: True when an ordinary user starts it: the sandbox is then made in a user namespace.
    rootless: bool
    #: Empty folder on which the sandbox's root is mounted, in a mount namespace of its own.
    root: str
    #: Holds one folder per kernel, for its sockets.
    kernels: str
    #: Folder of this package.
    sandbox: str
    #: Folder whose files every kernel may read.
    files: str
    #: Folders with installed packages.
    packages: tuple[str, ...]
    #: Interpreter and its prefix; both keep their path inside.
    python: str
    prefix: str
    preload: tuple[str, ...]
    limits: KernelLimits
    #: Compiled seccomp filter, base64.
    seccomp: str
    #: Seconds that kernels live on after the gateway's connection ended.
    orphan_grace_s: float
    #: Cgroups of the kernels, one for all of them in each hierarchy; removed when the template has ended.
    cgroups: tuple[str, ...] = ()
    #: "forked", or "stock": ipykernel as it comes.
    kernel: str = "forked"

    def package_paths(self) -> list[str]:
        """Where `packages` are inside."""
        return [f"{PACKAGES}/{number}" for number in range(len(self.packages))]

    def seccomp_program(self) -> bytes:
        return base64.b64decode(self.seccomp)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, fd: int) -> SandboxSpec:
        """Read the document from the start of `fd`, which stays open."""
        fields = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        limits = KernelLimits(**fields.pop("limits"))
        packages = tuple(fields.pop("packages"))
        preload = tuple(fields.pop("preload"))
        cgroups = tuple(fields.pop("cgroups"))
        return cls(**fields, limits=limits, packages=packages, preload=preload, cgroups=cgroups)
