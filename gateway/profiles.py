"""Kinds of kernels: those that come with the product, as the settings change them and add to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.settings import PoolSettings, ProfileSettings, Settings
from gateway.types import Role
from kernel_pool.types import Limits, Profile, StartFailed

#: What comes with the product. `pool.profiles` changes single fields of these by their name.
BUILT_IN: Mapping[str, ProfileSettings] = {
    "agent": ProfileSettings(display_name="Python 3 (agent)", roles=("agent", "operator")),
    "analyst": ProfileSettings(
        display_name="Python 3 (analyst)",
        roles=("analyst",),
        preload=("numpy", "pandas", "pyarrow", "duckdb", "matplotlib", "matplotlib.pyplot"),
        minimum=0,
        maximum=4,
    ),
    "stock": ProfileSettings(display_name="Python 3 (ipykernel)", kernel="stock", preload=(), minimum=0, maximum=2),
}

_LIMITS = ("memory_mb", "disk_mb", "processes", "open_files", "cpus", "cpu_seconds")


def profiles_of(settings: Settings) -> tuple[Profile, ...]:
    """All profiles; the first is what a session gets whose role no profile is for. Raises StartFailed for none."""
    found = tuple(_profile(settings, name, own) for name, own in _merged(settings.pool).items())
    if not found:
        raise StartFailed("pool.profiles turns every profile off. Leave one of them enabled, or add one.")
    return found


def profile_for(settings: Settings, role: Role) -> str:
    """The profile that sessions of a role get unless they ask for another."""
    merged = _merged(settings.pool)
    return next((name for name, own in merged.items() if role in (own.roles or ())), next(iter(merged)))


def _merged(pool: PoolSettings) -> dict[str, ProfileSettings]:
    found = dict(BUILT_IN)
    for name, changes in pool.profiles.items():
        before = found.get(name, ProfileSettings())
        found[name] = before.model_copy(update=changes.model_dump(exclude_unset=True))
    return {name: own for name, own in found.items() if own.enabled}


def _profile(settings: Settings, name: str, own: ProfileSettings) -> Profile:
    pool, cell = settings.pool, settings.cell
    values: dict[str, Any] = {limit: getattr(pool, limit) for limit in _LIMITS}
    values |= {limit: value for limit in _LIMITS if (value := getattr(own, limit)) is not None}
    limits = replace(
        Limits(**values), output_bytes=cell.output_mb * 2**20, output_flood_bytes=cell.output_flood_mb * 2**20
    )
    minimum = pool.warm if own.minimum is None else own.minimum
    return Profile(
        name=name,
        display_name=own.display_name or f"Python 3 ({name})",
        kernel=own.kernel or "forked",
        preload=pool.preload if own.preload is None else own.preload,
        limits=limits,
        minimum=minimum,
        maximum=max(minimum, pool.warm_maximum if own.maximum is None else own.maximum),
    )
