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
_EQ = "SCMP_CMP_MASKED_EQ"
#: The container's first process still has to load the compiled filter, which then refuses this.
_PR_SET_SECCOMP = 22
#: What libraries try first and do without when it is not there; Docker before 23 answers EPERM to all it cannot name.
_MISSING = """
    cachestat clone3 fchmodat2 futex_requeue futex_wait futex_wake futex_waitv inotify_init inotify_init1 io_destroy
    io_getevents io_setup io_submit landlock_add_rule landlock_create_ruleset landlock_restrict_self listmount
    map_shadow_stack mbind memfd_create memfd_secret migrate_pages modify_ldt move_pages mq_open msgget process_mrelease
    rseq seccomp semget set_mempolicy shmget splice statmount tee vmsplice
"""


def docker_profile(*, loopback: bool = False) -> dict[str, Any]:
    """The profile as a document for `--security-opt seccomp=`; `loopback` as for `seccomp.compile_filter`."""
    allowed = sorted({name for group in seccomp.ALLOWED for name in group.split()})
    refused = sorted(seccomp.REFUSED.split())
    missing = sorted(set(_MISSING.split()) - set(allowed) - set(refused))
    namespaces = sum(seccomp.CLONE_NAMESPACES)
    rules: list[dict[str, Any]] = [
        {"names": allowed, "action": _ALLOW},
        {"names": refused, "action": _ERRNO, "errnoRet": errno.EPERM},
        {"names": missing, "action": _ERRNO, "errnoRet": errno.ENOSYS},
        {"names": sorted(seccomp.PRETENDED.split()), "action": _ERRNO, "errnoRet": 0},
        _rule("clone", 0, "SCMP_CMP_MASKED_EQ", namespaces, 0),
        _rule("socket", 0, "SCMP_CMP_EQ", seccomp.AF_UNIX),
        {**_rule("socket", 0, "SCMP_CMP_EQ", seccomp.AF_NETLINK), "action": _ERRNO, "errnoRet": errno.EOPNOTSUPP},
        *([_tcp()] if loopback else []),
        _rule("socketpair", 0, "SCMP_CMP_EQ", seccomp.AF_UNIX),
        *(_rule("ioctl", 1, _EQ, seccomp.WORD, request) for request in seccomp.IOCTLS),
        *(_rule("personality", 0, "SCMP_CMP_EQ", persona) for persona in (0, seccomp.WORD)),
        *(_rule("prctl", 0, _EQ, seccomp.WORD, option) for option in (*seccomp.PRCTL_OPTIONS, _PR_SET_SECCOMP)),
        *(_rule("setsockopt", 1, _EQ, seccomp.WORD, level) for level in seccomp.OTHER_LEVELS),
        *(_socket_option(option) for option in seccomp.SOCKET_OPTIONS),
        *(_rule("setrlimit", 0, _EQ, seccomp.WORD, limit) for limit in seccomp.RLIMITS),
        *(_rule("prlimit64", 1, _EQ, seccomp.WORD, limit) for limit in seccomp.RLIMITS),
        *_core_limit(),
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
    return {"names": [name], "action": _ALLOW, "args": [_argument(index, operator, value, second)]}


def _argument(index: int, operator: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": second, "op": operator}


def _tcp() -> dict[str, Any]:
    domain = _argument(0, "SCMP_CMP_EQ", seccomp.AF_INET)
    kind = _argument(1, _EQ, seccomp.SOCKET_TYPES, seccomp.SOCK_STREAM)
    return {"names": ["socket"], "action": _ALLOW, "args": [domain, kind]}


def _socket_option(option: int) -> dict[str, Any]:
    level = _argument(1, _EQ, seccomp.WORD, seccomp.SOL_SOCKET)
    return {"names": ["setsockopt"], "action": _ALLOW, "args": [level, _argument(2, _EQ, seccomp.WORD, option)]}


def _core_limit() -> list[dict[str, Any]]:
    """To be read, and not to be set."""
    core = _argument(1, _EQ, seccomp.WORD, seccomp.RLIMIT_CORE)
    new = {
        "names": ["prlimit64"],
        "action": _ERRNO,
        "errnoRet": errno.EPERM,
        "args": [core, _argument(2, "SCMP_CMP_NE", 0)],
    }
    return [{"names": ["prlimit64"], "action": _ALLOW, "args": [core, _argument(2, "SCMP_CMP_EQ", 0)]}, new]


if __name__ == "__main__":
    print(json.dumps(docker_profile(), indent=1))
