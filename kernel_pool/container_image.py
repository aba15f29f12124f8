"""Which code a sandbox image holds: `docker/build-image` labels it, the provisioner compares the label."""

from __future__ import annotations

import hashlib
from pathlib import Path

#: The image's label with the digest of the code in it.
LABEL = "omniops.sandbox"
_SANDBOX = Path(__file__).parent / "sandbox"


def sandbox_digest() -> str:
    """Digest of the files that run inside the sandbox, as they are here."""
    digest = hashlib.sha256()
    for path in sorted(_SANDBOX.glob("*.py")):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    print(sandbox_digest())
