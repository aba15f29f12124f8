"""`omniops kernelspec`: the profiles as kernelspecs, by which any Jupyter client starts sandboxed kernels.

What a kernelspec says is whole: it needs neither this configuration nor a gateway later on. A client needs the same
Python environment, where the provisioners are (kernel_pool.provisioner).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from gateway.profiles import profiles_of
from gateway.settings import Settings
from kernel_pool.choice import Choice
from kernel_pool.types import Profile

#: Every kernelspec of ours is called so, then as its profile.
PREFIX = "omniops-"
_PROVISIONERS = ("omniops-local", "omniops-docker")


class KernelspecError(Exception):
    """A kernelspec cannot be written or removed. The message says why and what to do."""


@dataclass(frozen=True)
class Installed:
    """A kernelspec of ours that Jupyter finds."""

    name: str
    display_name: str
    provisioner: str
    folder: Path


def install(settings: Settings, choice: Choice, *, user: bool, prefix: str | None) -> list[Installed]:
    """Write one kernelspec for each profile, over those that are there. `choice`: where kernels are to run.

    Raises:
        KernelspecError: the folder cannot be written to.
    """
    manager = KernelSpecManager()
    written = []
    for profile in profiles_of(settings):
        name = PREFIX + profile.name.lower()
        document = _document(settings, profile, choice)
        with tempfile.TemporaryDirectory(prefix="omniops-kernelspec-") as source:
            Path(source, "kernel.json").write_text(json.dumps(document, indent=1) + "\n")
            Path(source).chmod(0o755)
            try:
                folder = manager.install_kernel_spec(source, name, user=user, prefix=prefix)
            except OSError as error:
                raise KernelspecError(
                    f"Kernelspec {name} cannot be written to {error.filename}: {error.strerror}. "
                    "Use --user, or --prefix with a folder of yours."
                ) from error
        provisioner = document["metadata"]["kernel_provisioner"]["provisioner_name"]
        written.append(Installed(name, profile.display_name, provisioner, Path(folder)))
    return written


def installed() -> list[Installed]:
    """Our kernelspecs that Jupyter finds from here, whoever wrote them."""
    manager = KernelSpecManager()
    found = []
    for name, folder in sorted(manager.find_kernel_specs().items()):
        spec: KernelSpec = manager.get_kernel_spec(name)
        provisioner = spec.metadata.get("kernel_provisioner", {}).get("provisioner_name", "")
        if name.startswith(PREFIX) and provisioner in _PROVISIONERS:
            found.append(Installed(name, spec.display_name, provisioner, Path(folder)))
    return found


def remove(names: list[str]) -> list[Installed]:
    """Remove those of `names`, all of ours where none is named. Raises KernelspecError before anything is removed."""
    ours = {spec.name: spec for spec in installed()}
    unknown = [name for name in names if name not in ours]
    if unknown:
        raise KernelspecError(f"There is no kernelspec {unknown[0]!r} of ours. There are: {', '.join(ours) or 'none'}.")
    chosen = [ours[name] for name in names or ours]
    for spec in chosen:
        try:
            KernelSpecManager().remove_kernel_spec(spec.name)
        except (OSError, NoSuchKernel) as error:
            raise KernelspecError(f"Kernelspec {spec.name} in {spec.folder} cannot be removed: {error}.") from error
    return chosen


def _document(settings: Settings, profile: Profile, choice: Choice) -> dict[str, Any]:
    """kernel.json (jupyter_client, "Kernel specs")."""
    limits = profile.limits
    config: dict[str, Any] = {
        "profile": profile.name,
        "kernel": profile.kernel,
        "preload": list(profile.preload),
        "memory_mb": limits.memory_mb,
        "disk_mb": limits.disk_mb,
        "processes": limits.processes,
        "open_files": limits.open_files,
        "cpu_seconds": limits.cpu_seconds,
        "cpus": limits.cpus,
        "start_timeout_s": settings.pool.start_timeout_s,
    }
    kind, _, runtime = choice.place.partition(" ")
    if kind == "docker":
        config |= {"image": settings.docker.image, "runtime": runtime}
        config |= {"host": settings.docker.host} if settings.docker.host else {}
    return {
        # shown, not run
        "argv": ["omniops", "kernel", profile.name],
        "display_name": profile.display_name,
        "language": "python",
        "metadata": {
            # the debugger needs the stock kernel's own threads
            "debugger": profile.kernel == "stock",
            "kernel_provisioner": {"provisioner_name": f"omniops-{kind}", "config": config},
        },
    }
