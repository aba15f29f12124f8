"""The seccomp profile of a sandbox container, in Docker's form, out of the one list in `seccomp.py`.

The container runtime loads it before anything of ours runs in the container; the compiled filter, which the kernel's
process takes on itself, says the same. Two loaders, so that a mistake in one is no hole.

`python -m kernel_pool.container_seccomp` prints it; `docker/seccomp.json` holds it for containers started by hand.
"""

from __future__ import annotations

import errno
import json
from typing import Any

from kernel_pool import seccomp

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
#: What libraries try first and do without when it is not there; Docker before 23 answers EPERM to all it cannot name.
_MISSING = """
    cachestat clone3 fchmodat2 futex_requeue futex_wait futex_wake futex_waitv inotify_init inotify_init1 io_destroy
    io_getevents io_setup io_submit landlock_add_rule landlock_create_ruleset landlock_restrict_self listmount
    map_shadow_stack mbind memfd_create memfd_secret migrate_pages modify_ldt move_pages mq_open msgget process_mrelease
    rseq seccomp semget set_mempolicy shmget statmount vmsplice
"""


def docker_profile() -> dict[str, Any]:
    """The profile as a document for `--security-opt seccomp=`."""
    allowed = sorted({name for group in seccomp.ALLOWED for name in group.split()})
    refused = sorted(seccomp.REFUSED.split())
    missing = sorted(set(_MISSING.split()) - set(allowed) - set(refused))
    namespaces = sum(seccomp.CLONE_NAMESPACES)
    rules: list[dict[str, Any]] = [
        {"names": allowed, "action": _ALLOW},
        {"names": refused, "action": _ERRNO, "errnoRet": errno.EPERM},
        {"names": missing, "action": _ERRNO, "errnoRet": errno.ENOSYS},
        _rule("clone", 0, "SCMP_CMP_MASKED_EQ", namespaces, 0),
        _rule("socket", 0, "SCMP_CMP_EQ", seccomp.AF_UNIX),
        _rule("socketpair", 0, "SCMP_CMP_EQ", seccomp.AF_UNIX),
        *(_rule("ioctl", 1, "SCMP_CMP_MASKED_EQ", seccomp.WORD, request) for request in seccomp.IOCTLS),
        *(_rule("personality", 0, "SCMP_CMP_EQ", persona) for persona in (0, seccomp.WORD)),
    ]
    return {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": errno.ENOSYS,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": rules,
    }


def _rule(name: str, index: int, operator: str, value: int, second: int = 0) -> dict[str, Any]:
    argument = {"index": index, "value": value, "valueTwo": second, "op": operator}
    return {"names": [name], "action": _ALLOW, "args": [argument]}


if __name__ == "__main__":
    print(json.dumps(docker_profile(), indent=1))
