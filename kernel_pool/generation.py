"""The generation of a place: a digest of all that its kernels are made from (see `place.Place.generation`)."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig

import msgspec

from kernel_pool.container_image import sandbox_digest
from kernel_pool.types import PlaceConfig


def generation(config: PlaceConfig, *parts: str) -> str:
    """`parts`: what is special to the place, for example the image of its containers. Blocks: files are read."""
    profile = config.profile
    digest = hashlib.sha256()
    made_from = {
        "name": profile.name,
        "kernel": profile.kernel,
        "preload": profile.preload,
        "limits": profile.limits,
        "code": sandbox_digest(),
        "uid_range": config.uid_range,
        "orphan_grace_s": config.orphan_grace_s,
        "parts": parts,
    }
    digest.update(msgspec.json.encode(made_from, order="sorted"))
    for name, content in sorted(config.files.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def installed() -> str:
    """The interpreter and the packages of this process, which local kernels share: names and versions. Blocks."""
    names = [os.path.realpath(sys.executable), sys.version]
    for folder in sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}):
        names.append(folder)
        names += sorted(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
    return hashlib.sha256("\0".join(names).encode()).hexdigest()
