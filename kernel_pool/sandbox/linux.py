"""The Linux calls that Python 3.11's standard library lacks, as plain functions that raise OSError.

Used by the launcher on the host and by the template and its children inside, so: standard library and ctypes only.
Constants are those of the kernel's `uapi` headers; manual pages: unshare(2), mount(2), mount_setattr(2), capset(2),
prctl(2), seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

NEW_NS = 0x0002_0000
NEW_CGROUP = 0x0200_0000
NEW_UTS = 0x0400_0000
NEW_IPC = 0x0800_0000
NEW_USER = 0x1000_0000
NEW_PID = 0x2000_0000
NEW_NET = 0x4000_0000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

ATTR_RDONLY = 1
ATTR_NOSUID = 2
ATTR_NODEV = 4
ATTR_NOEXEC = 8

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x2008_0522
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
#: mount_setattr has one number on every architecture (it is newer than the tables were unified).
_SYS_MOUNT_SETATTR = 442

#: netdevice(7)
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_INTERFACE = "16sH22x"
#: Devices that drivers make in every new network namespace (core_net(5), fb_tunnels_only_for_init_net). They are down,
#: without an address, and nobody in the namespace has the rights to change that.
_TUNNELS = frozenset(
    ("tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0", "teql0")
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)


def check(result: int, what: str) -> int:
    """`result`, or OSError from errno if it is negative."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def unshare(flags: int) -> None:
    check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    check(_libc.setns(fd, kind), f"setns({kind:#x})")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    result = _libc.mount(_bytes(source), _bytes(target), _bytes(kind), flags, _bytes(data))
    check(result, f"mount {source or kind} on {target}")


def set_mount_attributes(target: str, attributes: int, *, recursive: bool = False) -> None:
    """Add restrictions (`ATTR_*`) to the mount at `target`, and to those below it if `recursive`."""
    arguments = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(flags),
        ctypes.c_char_p(arguments),
        ctypes.c_size_t(len(arguments)),
    )
    check(result, f"mount_setattr {target}")


def bind(source: str, target: str, *, read_only: bool, devices: bool = False) -> None:
    """Show `source` with all that is mounted below it at `target`; never with set-uid bits."""
    mount(source, target, None, MS_BIND | MS_REC)
    attributes = ATTR_NOSUID | (ATTR_RDONLY if read_only else 0) | (0 if devices else ATTR_NODEV)
    set_mount_attributes(target, attributes, recursive=True)


def unmount(target: str) -> None:
    """Take a mount out of sight; what still uses it keeps it."""
    check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def enter_root(path: str) -> None:
    """Make the mount at `path` the root of this mount namespace and let go of the old one."""
    os.chdir(path)
    check(_libc.pivot_root(b".", b"."), f"pivot_root {path}")
    unmount(".")
    os.chdir("/")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when the process that started it ends."""
    check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def set_dumpable() -> None:
    """Give /proc/self back to this process after its user id changed."""
    check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def drop_capabilities() -> None:
    """Give up every capability for good: bounding, ambient, inheritable, permitted and effective sets."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
        last = int(file.read())
    for capability in range(last + 1):
        check(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), f"prctl(PR_CAPBSET_DROP, {capability})")
    check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl(PR_CAP_AMBIENT)")
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    check(_libc.capset(header, bytes(24)), "capset")


def no_new_privileges() -> None:
    check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def raise_loopback() -> None:
    """Bring up the loopback device of this network namespace. Raises OSError if it has any other that is no tunnel."""
    require_loopback_only()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack(_INTERFACE, b"lo", 0)
        _, flags = struct.unpack(_INTERFACE, fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_INTERFACE, b"lo", flags | _IFF_UP))


def require_loopback_only() -> None:
    """Raise OSError where this network namespace has a device beside "lo" that leads out of it."""
    others = [name for name in _interfaces() if name != "lo" and name not in _TUNNELS]
    if others:
        raise OSError(errno.EPERM, f"a network of its own is needed, and this one has {', '.join(others)}")


def _interfaces() -> list[str]:
    with open("/proc/self/net/dev", encoding="utf-8") as file:
        return [line.split(":")[0].strip() for line in file.readlines()[2:]]


def load_seccomp(program: bytes) -> None:
    """Put this process and all that it starts under a compiled filter (array of `struct sock_filter`, 8 bytes each)."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    code = ctypes.create_string_buffer(program, len(program))
    argument = Program(len(program) // 8, ctypes.addressof(code))
    result = _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(argument), 0, 0)
    check(result, "prctl(PR_SET_SECCOMP)")


def map_user(inside: int, uid: int, gid: int) -> None:
    """In a user namespace just made: `uid`/`gid` of the parent namespace appear as `inside`; nobody else exists."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {uid} 1"), ("gid_map", f"{inside} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
            file.write(text)
