"""Landlock, where the system has it: one more lock behind mounts and seccomp, on another principle (landlock(7)).

A process under it changes files below the named folders only, whatever is mounted where and with which rights, can
mount nothing, opens no device for more than reading, and signals or reaches by abstract sockets nobody who is not
under it as well. Reading is left to the mounts, so that it costs nothing where a cell works.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from . import linux

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
#: From ABI 7 on: what is refused here is not for the machine's audit log, which a kernel could flood.
_LOG_NOTHING = 1 << 0 | 1 << 2

_WRITE_FILE, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 1, 1 << 13, 1 << 14, 1 << 15
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REMOVE = 1 << 4 | 1 << 5
#: Folders, files, sockets, pipes, symbolic links.
_MAKE = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12
_CHANGE = _WRITE_FILE | _REMOVE | _MAKE | _REFER
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The ABI that the system offers; 0 without Landlock, or with the first, by which no file could be moved."""
    try:
        found = _call(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise
    return found if found > 1 else 0


def restrict(writable: Sequence[str], devices: str) -> int:
    """Put this process and all that it starts under Landlock; returns the ABI, 0 if there is none.

    `writable`: folders in which files may be changed. `devices`: a folder whose devices may be written to.
    Needs no_new_privileges. Raises OSError.
    """
    abi = version()
    if abi == 0:
        return 0
    handled = _CHANGE | _MAKE_CHAR | _MAKE_BLOCK | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL_DEV if abi >= 5 else 0)
    attributes = struct.pack("QQQ", handled, 0, _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
    size = 24 if abi >= 6 else 8
    ruleset = _call(_SYS_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for path in writable:
            _allow(ruleset, path, handled & (_CHANGE | _TRUNCATE))
        _allow(ruleset, devices, handled & (_WRITE_FILE | _IOCTL_DEV))
        _call(_SYS_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(_LOG_NOTHING if abi >= 7 else 0))
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, access: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = ctypes.c_char_p(struct.pack("=Qi", access, folder))
        _call(_SYS_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(folder)


def _call(number: int, *arguments: object) -> int:
    return linux.check(_libc.syscall(ctypes.c_long(number), *arguments), f"landlock ({number})")
