"""Tries out, in a process of its own, what a sandbox needs; ends with 0, or with 3 and the first failure on stderr."""

from __future__ import annotations

import os
import sys

from . import linux
from .launch import NAMESPACES


def main(directory: str, user: str) -> None:
    """`directory`: an empty folder to mount on. `user`: as root, the user id that a kernel would get."""
    uid, gid = os.getuid(), os.getgid()
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    try:
        if uid != 0:
            linux.unshare(linux.NEW_USER)
            linux.map_user(0, uid, gid)
        linux.unshare(NAMESPACES)
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        linux.mount("tmpfs", directory, "tmpfs", flags, "size=64k,mode=755")
        linux.set_mount_attributes(directory, linux.ATTR_RDONLY)
        linux.mount("proc", directory, "proc", flags)
        linux.mount("proc", "/proc", "proc", flags)
        if uid == 0:
            os.setgroups([])
            os.setresgid(int(user), int(user), int(user))
            os.setresuid(int(user), int(user), int(user))
            linux.set_dumpable()
        uid, gid = os.getuid(), os.getgid()
        linux.unshare(linux.NEW_USER)
        linux.map_user(1000, uid, gid)
    except OSError as error:
        sys.stderr.write(f"{error.strerror}\n")
        sys.stderr.flush()
        os._exit(3)
    os._exit(0)
