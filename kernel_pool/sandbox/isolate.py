"""How a process just forked from the template shuts itself in, before it has a second thread or runs foreign code.

It is process 1 of its own pid namespace. The order matters: namespaces and mounts are made with the template's
rights, so that they belong to the template's user namespace; then the process changes to its own user and enters a
user namespace that owns none of them, so that no capability it could ever regain there would be over anything; limits
on processes count per user namespace, so they come after it; Landlock, where there is any, says once more what may be
written; the seccomp filter comes last, for it forbids the rest.

Afterwards the kernel can write to one bounded tmpfs only (its home, /tmp, /dev/shm): no descriptor, mount or socket
leads to a file of the host that it could change. The channel sockets are made here because /ipc turns read-only.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable

from . import landlock, linux
from .memory import data_bytes
from .memory import settle_memory_limit as settle_memory_limit
from .spec import CHANNELS, HOME, IPC, KERNEL_USER, KERNELS, KernelLimits

_NAMESPACES = linux.NEW_NS | linux.NEW_IPC | linux.NEW_UTS | linux.NEW_NET | linux.NEW_CGROUP
_MOUNT_FLAGS = linux.MS_NOSUID | linux.MS_NODEV
_NOTHING = "/var/tmp"  # noqa: S108 in the sandbox's read-only root, empty; an empty file system is mounted on it
_SCRATCH = "/mnt"

#: Where a kernel may write. With Landlock, not even to its own /proc.
_WRITABLE = (HOME, "/tmp", "/dev/shm")  # noqa: S108 the sandbox's own

#: What a kernel may see in /proc beside its own processes; everything else there is about the machine.
PROC_SHOWN = frozenset(
    ("self", "thread-self", "mounts", "net", "sys", "cpuinfo", "meminfo", "stat", "uptime", "loadavg", "version")
)

_MIB = 1024 * 1024
#: What the kernel's own start may add to its data before `settle_memory_limit` is called, MiB.
_START_ALLOWANCE_MB = 256
_NICENESS = 10
_OOM_SCORE = 1000


def confine(
    kernel: str,
    uid: int | None,
    limits: KernelLimits,
    seccomp: bytes,
    show: Callable[[int], None],
    *,
    loopback: bool = False,
) -> dict[str, int]:
    """Shut this process in; returns a listening unix socket at `IPC/<channel>` for each of its channels.

    `uid` is the user to become (None: stay, as an ordinary user's template must). `show` is given the kernel's /proc,
    an open folder that lists its own processes and no others, while descriptors may still be sent past what other
    kernels of the same user have under way (unix(7), ETOOMANYREFS). `loopback`: whether it may talk to itself by TCP;
    then `seccomp` must let it.

    Raises OSError with the step that failed; the process must then end.
    """
    linux.unshare(_NAMESPACES)
    if loopback:
        linux.raise_loopback()
    socket.sethostname("kernel")
    settings = _mount_proc()
    _mount_scratch(limits.disk_mb, uid)
    _mount_terminals()
    listeners = _open_channels(kernel)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    show(proc)
    os.close(proc)
    _write("/proc/self/oom_score_adj", str(_OOM_SCORE))
    os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    _become_nobody(uid, settings)
    set_limits(limits)
    linux.drop_capabilities()
    linux.no_new_privileges()
    landlock.restrict(_WRITABLE, "/dev")
    os.chdir(HOME)
    os.umask(0o022)
    linux.load_seccomp(seccomp)
    return listeners


def _write(path: str, text: str, dir_fd: int | None = None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _mount_proc() -> int:
    """A /proc of this pid namespace, without what it tells about the machine; returns /proc/sys/user, open."""
    linux.mount("tmpfs", _NOTHING, "tmpfs", _MOUNT_FLAGS | linux.MS_RDONLY, "size=4k,nr_inodes=1,mode=555")
    linux.mount("proc", "/proc", "proc", _MOUNT_FLAGS | linux.MS_NOEXEC)
    settings = os.open("/proc/sys/user", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() and entry.name not in PROC_SHOWN:
            nothing = _NOTHING if entry.is_dir() else "/dev/null"
            linux.mount(nothing, entry.path, None, linux.MS_BIND)
    linux.mount("/proc/sys", "/proc/sys", None, linux.MS_BIND)
    linux.set_mount_attributes("/proc/sys", linux.ATTR_RDONLY)
    return settings


def _mount_scratch(size_mb: int, uid: int | None) -> None:
    """One file system in memory with one limit for all that the kernel may write."""
    options = f"size={size_mb}m,nr_inodes={size_mb * 256},mode=755"
    linux.mount("tmpfs", _SCRATCH, "tmpfs", _MOUNT_FLAGS, options)
    for name, target, mode in (("home", HOME, 0o700), ("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777)):  # noqa: S108
        part = f"{_SCRATCH}/{name}"
        os.mkdir(part)
        os.chmod(part, mode)
        if uid is not None:
            os.chown(part, uid, uid)
        linux.mount(part, target, None, linux.MS_BIND)
    linux.unmount(_SCRATCH)


def _mount_terminals() -> None:
    """Pseudo-terminals of its own, for `!command` in a cell."""
    linux.mount("devpts", "/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, "ptmxmode=0666,mode=600,max=64")


def _open_channels(kernel: str) -> dict[str, int]:
    """Listen on the kernel's sockets in its own folder, which then turns read-only and hides all other kernels'."""
    linux.mount(f"{KERNELS}/{kernel}", IPC, None, linux.MS_BIND)
    listeners = {}
    os.umask(0o077)
    for channel in CHANNELS:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{IPC}/{channel}")
        listener.listen(128)
        listeners[channel] = listener.detach()
    linux.set_mount_attributes(IPC, linux.ATTR_RDONLY | linux.ATTR_NOSUID | linux.ATTR_NODEV | linux.ATTR_NOEXEC)
    linux.mount(_NOTHING, KERNELS, None, linux.MS_BIND)
    return listeners


def _become_nobody(uid: int | None, settings: int) -> None:
    """Change to the kernel's user, then into a user namespace that knows this user alone and can make no other.

    `settings`: /proc/sys/user, opened when it could still be written. Closed here.
    """
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        linux.set_dumpable()
    outer_uid, outer_gid = os.getuid(), os.getgid()
    linux.unshare(linux.NEW_USER)
    linux.map_user(KERNEL_USER, outer_uid, outer_gid)
    _write("max_user_namespaces", "0", dir_fd=settings)
    os.close(settings)


def set_limits(limits: KernelLimits) -> None:
    """Resource limits (setrlimit(2)) of this process and all that it starts."""
    for kind, value in (
        # not 0: with that the system would still start a program, as root, that it hands core dumps to (core(5))
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_DATA, data_bytes() + (limits.memory_mb + _START_ALLOWANCE_MB) * _MIB),
        (resource.RLIMIT_FSIZE, limits.disk_mb * _MIB),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_SIGPENDING, 1024),
        (resource.RLIMIT_STACK, 8 * _MIB),
    ):
        resource.setrlimit(kind, (value, value))
