"""Tries, one by one and each in a process of its own, the parts that a sandbox is made of; for `omniops doctor`.

Prints a line of JSON for each: its name, and in words what failed ("" when it works). `probe` tries the whole.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
from collections.abc import Callable

from . import linux

_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_EPERM = 1
#: Seconds for one part; it is ended then.
_TIMEOUT_S = 10
_KINDS = {
    "mount namespace": linux.NEW_NS,
    "process namespace": linux.NEW_PID,
    "network namespace": linux.NEW_NET,
    "IPC namespace": linux.NEW_IPC,
    "host name namespace": linux.NEW_UTS,
    "cgroup namespace": linux.NEW_CGROUP,
}


class Trial:
    """One trial: `directory` is an empty folder to mount on, `user` the user id that a kernel would get as root."""

    def __init__(self, directory: str, user: int, seccomp: bytes) -> None:
        self.directory = directory
        self.user = user
        self.seccomp = seccomp

    def user_namespace(self) -> None:
        uid, gid = os.getuid(), os.getgid()
        linux.unshare(linux.NEW_USER)
        linux.map_user(0, uid, gid)

    def ground(self, flags: int = 0) -> None:
        """What the parts stand on: rights over a mount namespace that the host does not see."""
        if os.getuid() != 0:
            self.user_namespace()
        linux.unshare(linux.NEW_NS | flags)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)

    def namespace(self, kind: int) -> None:
        if os.getuid() != 0:
            self.user_namespace()
        linux.unshare(kind)

    def scratch(self) -> None:
        self.ground()
        linux.mount("tmpfs", self.directory, "tmpfs", _FLAGS, "size=64k,mode=755")

    def read_only(self) -> None:
        self.scratch()
        linux.set_mount_attributes(self.directory, linux.ATTR_RDONLY, recursive=True)
        try:
            os.mkdir(f"{self.directory}/x")
        except OSError:
            return
        raise OSError(0, "mount_setattr: it can still be written to")

    def bind(self) -> None:
        self.scratch()
        os.mkdir(f"{self.directory}/usr")
        linux.bind("/usr", f"{self.directory}/usr", read_only=True)

    def pivot_root(self) -> None:
        self.scratch()
        linux.enter_root(self.directory)

    def proc(self) -> None:
        self.ground(linux.NEW_PID)
        _in_child(lambda: linux.mount("proc", self.directory, "proc", _FLAGS))

    def terminals(self) -> None:
        self.ground()
        options = "ptmxmode=0666,mode=600,max=64"
        linux.mount("devpts", self.directory, "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)

    def own_user(self) -> None:
        os.setgroups([])
        os.setresgid(self.user, self.user, self.user)
        os.setresuid(self.user, self.user, self.user)

    def second_user_namespace(self) -> None:
        """The one that a kernel is in: it owns nothing of what is around it."""
        root = os.getuid() == 0
        self.ground()
        if root:
            self.own_user()
            linux.set_dumpable()
        uid, gid = os.getuid(), os.getgid()
        linux.unshare(linux.NEW_USER)
        linux.map_user(1000, uid, gid)

    def no_new_privileges(self) -> None:
        linux.no_new_privileges()

    def capabilities(self) -> None:
        self.ground()
        linux.drop_capabilities()

    def filter(self) -> None:
        linux.no_new_privileges()
        linux.load_seccomp(self.seccomp)
        try:
            linux.unshare(linux.NEW_UTS)
        except OSError as error:
            if error.errno == _EPERM:
                return
            raise
        raise OSError(0, "the filter lets unshare pass")

    def pidfd(self) -> None:
        os.close(os.pidfd_open(os.getpid()))

    def socket_rights(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(ours, [b"x"], [0])
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        os.close(fds[0])


def main(directory: str, user: str, seccomp: str) -> None:
    """`seccomp`: the compiled filter, base64; "" where there is none."""
    trial = Trial(directory, int(user), base64.b64decode(seccomp))
    parts: dict[str, Callable[[], None]] = {"user namespace": trial.user_namespace}
    for name, kind in _KINDS.items():
        parts[name] = lambda kind=kind: trial.namespace(kind)  # type: ignore[misc]
    parts |= {
        "file system in memory": trial.scratch,
        "bind mount": trial.bind,
        "read-only mount": trial.read_only,
        "pivot_root": trial.pivot_root,
        "proc of its own": trial.proc,
        "terminals of its own": trial.terminals,
        "user namespace of a kernel": trial.second_user_namespace,
        "no capabilities": trial.capabilities,
        "no_new_privs": trial.no_new_privileges,
        "pidfd": trial.pidfd,
        "descriptors over sockets": trial.socket_rights,
    }
    if os.getuid() == 0:
        parts["system user of its own"] = trial.own_user
    if seccomp:
        parts["seccomp filter"] = trial.filter
    for name, part in parts.items():
        print(json.dumps({"part": name, "failure": _attempt(part)}), flush=True)


def _attempt(part: Callable[[], None]) -> str:
    """Run it in a child; what failed, or nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(_report(part, writer))
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as report:
        if not select.select([report], [], [], _TIMEOUT_S)[0]:
            os.kill(child, signal.SIGKILL)
        said = report.read()
    _, status = os.waitpid(child, 0)
    if said or status == 0:
        return said
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


def _report(part: Callable[[], None], writer: int) -> int:
    try:
        part()
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        os.write(writer, text.encode())
        return 1
    return 0


def _in_child(step: Callable[[], None]) -> None:
    """For what only the first process of a new process namespace can do."""
    failure = _attempt(step)
    if failure:
        raise OSError(0, failure)
