"""The system calls that a kernel may make: an allow-list, compiled with libseccomp to the bytes that the kernel loads.

What is not listed gets ENOSYS ("Function not implemented"), so that libraries fall back as they do on an old kernel;
what is known and refused on purpose gets EPERM, so that a person who tries reads a plain "Operation not permitted".

Left out beside the obvious (mounts, namespaces, tracing, modules): whatever holds memory that no process shows as its
own and that the memory watcher could not see (memfd, System V shared memory, message queues, vmsplice, aio), what
draws on budgets that are shared by all processes of a user (inotify, aio, keys), io_uring, and what escapes through the
page cache were made of (splice, tee). Where a call is needed but not all it can do, its arguments are listed: no packet
filters (sockets', seccomp's), for the system compiles them; no change of the limit on core dumps.
"""

from __future__ import annotations

import errno
import platform
import tempfile
from functools import cache

from kernel_pool.types import IsolationUnavailable

_FILES = """
    access alarm chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock
    fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr lchown
    lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat
    newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr stat statfs statx symlink symlinkat
    sync_file_range truncate umask unlink unlinkat utime utimensat utimes write writev
"""
_MEMORY = """
    brk get_mempolicy madvise mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync munlock munlockall
    munmap pkey_alloc pkey_free pkey_mprotect
"""
_PROCESSES = """
    arch_prctl capget execve execveat exit exit_group fork getcpu getegid geteuid getgid getgroups getpgid getpgrp
    getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid kill pidfd_open
    pidfd_send_signal restart_syscall rseq sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield set_robust_list get_robust_list set_tid_address
    setfsgid setfsuid setgid setgroups setpgid setpriority setregid setresgid setresuid setreuid setsid
    setuid sysinfo tgkill times tkill uname vfork wait4 waitid membarrier
"""
_SIGNALS_AND_TIME = """
    clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep pause rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo setitimer
    sigaltstack signalfd signalfd4 time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
    timerfd_create timerfd_gettime timerfd_settime
"""
_WAITING_AND_SOCKETS = """
    accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd
    eventfd2 futex futex_waitv futex_wake futex_wait futex_requeue getpeername getrandom getsockname getsockopt
    listen pipe pipe2 poll ppoll pselect6 recvfrom recvmmsg recvmsg select sendmmsg sendmsg sendto shutdown
"""
ALLOWED = (_FILES, _MEMORY, _PROCESSES, _SIGNALS_AND_TIME, _WAITING_AND_SOCKETS)

REFUSED = """
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig
    fsmount fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
    kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount name_to_handle_at
    open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv
    process_vm_writev ptrace quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday
    swapoff swapon syslog umount umount2 unshare userfaultfd vhangup
"""

#: Done by doing nothing: they would write out all that the machine has in memory, on everybody's time.
PRETENDED = "sync syncfs"

#: Namespaces that clone() could make; a thread or a fork has none of these flags.
CLONE_NAMESPACES = (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000)
AF_UNIX, AF_INET, AF_NETLINK = 1, 2, 16
SOCK_STREAM = 1
#: The type in socket(2)'s second argument, without its flags.
SOCKET_TYPES = 0xF
_SOCKET_DOMAINS = range(47)
#: Terminals (TCGETS..TIOCGPTPEER without TIOCSTI and TIOCLINUX), FIONREAD and descriptor flags, FICLONE.
IOCTLS = (
    *(0x5401, 0x5402, 0x5403, 0x5404, 0x5409, 0x540A, 0x540B, 0x540E, 0x540F, 0x5410, 0x5411, 0x5413, 0x5414),
    *(0x541B, 0x5420, 0x5421, 0x5422, 0x5423, 0x5425, 0x5429, 0x5450, 0x5451, 0x5452, 0x5460),
    *(0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D, 0x80045430, 0x40045431, 0x80045438, 0x80045439, 0x5441),
    *(0x40049409, 0x4020940D),
)
#: prctl(2) without what loads filters or changes where the process's memory is said to be.
PRCTL_OPTIONS = (
    *(1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 21, 23, 24, 25, 26, 27, 29, 30, 33, 34, 36, 37, 38, 39, 40, 41, 42, 47),
    *(52, 53, 0x5356_4D41),
)
SOL_SOCKET = 1
#: Options of that level (socket(7)) without those that attach a filter (SO_ATTACH_FILTER, _BPF, _REUSEPORT_*).
SOCKET_OPTIONS = tuple(sorted(set(range(84)) - {26, 50, 51, 52}))
#: The other protocols': of TCP, IP and IPv6, for those who ask before they know that there is no network.
OTHER_LEVELS = (0, 6, 41)
RLIMIT_CORE = 4
#: A core dump's limit stays as it was set: see `sandbox.isolate`.
RLIMITS = tuple(number for number in range(16) if number != RLIMIT_CORE)
WORD = 0xFFFF_FFFF


@cache
def compile_filter(*, loopback: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter` for this machine's architecture.

    `loopback`: TCP sockets may be made, for a process in a network namespace that has a loopback device and no other.

    Raises IsolationUnavailable when libseccomp is missing or does not know the architecture.
    """
    try:
        import pyseccomp as seccomp  # type: ignore[import-untyped]
    except (ImportError, OSError, RuntimeError) as error:
        raise IsolationUnavailable(
            f"libseccomp could not be loaded ({error}). Install it: apt-get install libseccomp2"
        ) from error

    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    # calls by another architecture's table (32 bit, x32) would pass by the rules below
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)

    def add(action: int, name: str, *arguments: seccomp.Arg) -> None:
        try:
            rules.add_rule(action, name, *arguments)
        except (OSError, ValueError) as error:
            # a call that this libseccomp or this architecture does not have stays refused
            if name in {"clone", "socket", "ioctl", "read", "execve"}:
                raise IsolationUnavailable(f"no seccomp rule for {name} on {platform.machine()}: {error}") from error

    for group in ALLOWED:
        for name in group.split():
            add(seccomp.ALLOW, name)
    for name in REFUSED.split():
        add(seccomp.ERRNO(errno.EPERM), name)
    add(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, sum(CLONE_NAMESPACES), 0))
    for flag in CLONE_NAMESPACES:
        add(seccomp.ERRNO(errno.EPERM), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    for domain in _SOCKET_DOMAINS:
        if domain == AF_NETLINK or (loopback and domain == AF_INET):
            continue
        action = seccomp.ALLOW if domain == AF_UNIX else seccomp.ERRNO(errno.ENETUNREACH)
        add(action, "socket", seccomp.Arg(0, seccomp.MASKED_EQ, WORD, domain))
    # libzmq asks it for the interfaces before it binds by TCP, and ends the process at any other error
    add(seccomp.ERRNO(errno.EOPNOTSUPP), "socket", seccomp.Arg(0, seccomp.MASKED_EQ, WORD, AF_NETLINK))
    for kind in range(SOCKET_TYPES + 1) if loopback else ():
        action = seccomp.ALLOW if kind == SOCK_STREAM else seccomp.ERRNO(errno.ENETUNREACH)
        inet = seccomp.Arg(0, seccomp.MASKED_EQ, WORD, AF_INET)
        add(action, "socket", inet, seccomp.Arg(1, seccomp.MASKED_EQ, SOCKET_TYPES, kind))
    add(seccomp.ALLOW, "socketpair", seccomp.Arg(0, seccomp.MASKED_EQ, WORD, AF_UNIX))
    for request in IOCTLS:
        add(seccomp.ALLOW, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, WORD, request))
    for persona in (0, WORD):
        add(seccomp.ALLOW, "personality", seccomp.Arg(0, seccomp.MASKED_EQ, WORD, persona))
    for name in PRETENDED.split():
        add(seccomp.ERRNO(0), name)
    for option in PRCTL_OPTIONS:
        add(seccomp.ALLOW, "prctl", seccomp.Arg(0, seccomp.MASKED_EQ, WORD, option))
    for option in SOCKET_OPTIONS:
        level = seccomp.Arg(1, seccomp.MASKED_EQ, WORD, SOL_SOCKET)
        add(seccomp.ALLOW, "setsockopt", level, seccomp.Arg(2, seccomp.MASKED_EQ, WORD, option))
    for number in OTHER_LEVELS:
        add(seccomp.ALLOW, "setsockopt", seccomp.Arg(1, seccomp.MASKED_EQ, WORD, number))
    for limit in RLIMITS:
        add(seccomp.ALLOW, "setrlimit", seccomp.Arg(0, seccomp.MASKED_EQ, WORD, limit))
        add(seccomp.ALLOW, "prlimit64", seccomp.Arg(1, seccomp.MASKED_EQ, WORD, limit))
    core = seccomp.Arg(1, seccomp.MASKED_EQ, WORD, RLIMIT_CORE)
    add(seccomp.ALLOW, "prlimit64", core, seccomp.Arg(2, seccomp.EQ, 0))
    add(seccomp.ERRNO(errno.EPERM), "prlimit64", core, seccomp.Arg(2, seccomp.NE, 0))

    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
