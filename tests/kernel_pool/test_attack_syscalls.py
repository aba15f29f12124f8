"""From inside a cell: system calls by the front door and by side doors."""

from __future__ import annotations

import os
import platform

import pytest
from attack import Arena, output

pytestmark = pytest.mark.asyncio(loop_scope="session")

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system call numbers of x86-64")

#: Each has led out of a sandbox, or would. ENOSYS where libraries ask whether a call is there, EPERM where people try.
REFUSED = {
    "EPERM": {
        **{"bpf": 321, "perf_event_open": 298, "keyctl": 250, "add_key": 248, "request_key": 249, "kcmp": 312},
        **{"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "userfaultfd": 323},
        **{"open_by_handle_at": 304, "name_to_handle_at": 303, "pidfd_getfd": 438, "process_vm_writev": 311},
        **{"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "fspick": 433, "mount_setattr": 442},
        **{"init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320},
        **{"iopl": 172, "ioperm": 173, "quotactl": 179, "lookup_dcookie": 212, "fanotify_init": 300, "vhangup": 153},
        **{"process_madvise": 440, "adjtimex": 159, "clock_settime": 227, "setdomainname": 171, "swapoff": 168},
    },
    "ENOSYS": {
        **{
            "clone3": 435,
            "seccomp": 317,
            "modify_ldt": 154,
            "unknown": 999,
            "splice": 275,
            "tee": 276,
            "vmsplice": 278,
        },
        **{"memfd_create": 319, "memfd_secret": 447, "move_pages": 279, "migrate_pages": 256, "mbind": 237},
        **{
            "landlock_create_ruleset": 444,
            "process_mrelease": 448,
            "cachestat": 451,
            "statmount": 457,
            "listmount": 458,
        },
        **{"map_shadow_stack": 453, "lsm_set_self_attr": 460, "set_thread_area": 205, "uselib": 134},
        **{"mq_open": 240, "io_setup": 206, "io_submit": 209, "inotify_init1": 294, "_sysctl": 156, "nfsservctl": 180},
    },
}


@pytest.mark.parametrize(
    "code",
    [
        "call('mount', b'tmpfs', b'/tmp', b'tmpfs', 0, None)",
        "call('mount', None, b'/ipc', None, 32 | 4096, None)",
        "call('mount', None, b'/', None, 32, None)",
        "call('umount2', b'/run/kernels', 2)",
        "call('umount2', b'/proc/cmdline', 2)",
        "call('pivot_root', b'.', b'.')",
        "attempt(os.chroot, '/tmp')",
        "call('unshare', 0x10000000)",
        "call('unshare', 0x00020000)",
        "call('unshare', 0x40000000)",
        "call('setns', os.open('/proc/self/ns/net', os.O_RDONLY), 0)",
        "call('ptrace', 16, 1, 0, 0)",
        "call('ptrace', 0, 0, 0, 0)",
        "call('process_vm_readv', 1, None, 0, None, 0, 0)",
        "call('sethostname', b'x', 1)",
        "call('swapon', b'/tmp/x', 0)",
        "call('acct', b'/tmp/x')",
        "call('klogctl', 2, None, 0)",
        "call('settimeofday', ctypes.create_string_buffer(16), None)",
        "call('reboot', 0)",
    ],
)
async def test_privileged_calls_are_not_permitted(arena: Arena, code: str) -> None:
    assert output(await arena.probe(code)) == "'EPERM'"


@on_x86
@pytest.mark.parametrize("answer", REFUSED)
async def test_calls_outside_the_allow_list_are_refused(arena: Arena, answer: str) -> None:
    code = f"print({{name: syscall(number, 0, 0, 0, 0, 0) for name, number in {REFUSED[answer]!r}.items()}})"
    assert output(await arena.probe(code)) == str(dict.fromkeys(REFUSED[answer], answer))


@on_x86
@pytest.mark.parametrize("flag", ["0x10000000", "0x20000000", "0x00020000", "0x40000000", "0x04000000", "0x02000000"])
async def test_clone_makes_no_namespaces(arena: Arena, flag: str) -> None:
    assert output(await arena.probe(f"syscall(56, ctypes.c_ulong({flag} | 17), 0, 0, 0, 0)")) == "'EPERM'"


@on_x86
@pytest.mark.parametrize(
    "machine_code",
    [
        # x32: getpid through the other table of numbers; i386: the same through interrupt 0x80
        pytest.param("b8 27 00 00 40 0f 05 c3", id="x32"),
        pytest.param("b8 14 00 00 00 cd 80 c3", id="i386"),
    ],
)
async def test_calls_by_another_architectures_table_do_nothing(arena: Arena, machine_code: str) -> None:
    code = f"""
import mmap, signal
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex({machine_code!r}))
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
child = os.fork()
if child == 0:
    os._exit(function() == os.getpid())
status = os.waitpid(child, 0)[1]
print(signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""
    # gVisor has no such table, and goes on
    assert output(await arena.probe(code)) in ({"SIGSYS", "0"} if arena.gvisor else {"SIGSYS"})


async def test_has_no_capabilities_and_gets_none(arena: Arena) -> None:
    code = """
import subprocess
wanted = ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')
for text in (open('/proc/self/status').read(), subprocess.check_output(['cat', '/proc/self/status'], text=True)):
    print(*{line.split()[1] for line in text.splitlines() if line.startswith(wanted)})
"""
    assert output(await arena.probe(code)).splitlines() == ["0" * 16, "0" * 16]


async def test_cannot_become_another_user(arena: Arena) -> None:
    code = """
print(os.getuid(), attempt(os.setuid, 0), attempt(os.setgid, 0), attempt(os.setgroups, [0]))
"""
    user, *answers = output(await arena.probe(code)).split()
    if arena.contained:
        assert int(user) >= 1000
        assert answers == ["EPERM", "EPERM", "EPERM"]
    else:
        assert (user, *answers) == ("1000", "EINVAL", "EINVAL", "EPERM")


async def test_set_uid_programs_give_nothing(arena: Arena) -> None:
    code = """
import subprocess, shutil
for program in ('su', 'mount', 'newgrp', 'passwd'):
    path = shutil.which(program)
    if path:
        subprocess.run([path], stdin=subprocess.DEVNULL, capture_output=True)
done = subprocess.run(['sh', '-c', 'id -u; unshare --user id; unshare --mount id'], capture_output=True, text=True)
print(done.stdout.split() == [str(os.getuid())], done.stderr.count('not permitted'))
"""
    assert output(await arena.probe(code)) == "True 2"


async def test_cannot_push_characters_into_a_terminal(arena: Arena) -> None:
    code = """
import fcntl, pty
master, slave = pty.openpty()
print(attempt(fcntl.ioctl, slave, 0x5412, b'x'))
"""
    assert output(await arena.probe(code)) == "ENOSYS"


async def test_broken_native_code_ends_its_own_kernel_only(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        result = await kernel.execute("ctypes.string_at(0)", deadline_s=30)
        assert result.status == "dead"
        assert result.exit is not None
        assert result.exit.detail == "the kernel's process crashed with SIGSEGV in native code"
        assert not os.path.exists(f"/proc/{kernel.pid}/root/ipc")


@on_x86
async def test_changes_nothing_by_calls_that_pretend(arena: Arena) -> None:
    """`sync` would write out all that the whole machine has in memory ("Houdini's escape", CCS 2019)."""
    code = """
import time
began = time.perf_counter()
for _ in range(2000):
    call('sync')
print(call('sync'), call('syncfs', os.open('/usr', os.O_RDONLY)), time.perf_counter() - began < 5)
"""
    assert output(await arena.probe(code)) == "0 0 True"


@on_x86
async def test_gives_the_system_no_program_to_compile(arena: Arena) -> None:
    """Packet filters of sockets and seccomp are compiled to machine code in the system's memory."""
    code = """
import socket, struct
one, other = socket.socketpair()
program = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0xffff))
attached = struct.pack('HP', 1, ctypes.addressof(program))
for option in (26, 50, 51, 52):
    print(attempt(one.setsockopt, socket.SOL_SOCKET, option, attached))
passed = ctypes.create_string_buffer(attached)
print(call('prctl', 22, 2, passed, 0, 0), syscall(157, ctypes.c_long(22 + (1 << 32)), 2, passed, 0, 0))
one.send(b'x')
print(other.recv(1))
"""
    assert output(await arena.probe(code)).split() == ["ENOSYS"] * 6 + ["b'x'"]


@on_x86
async def test_a_crash_starts_no_program_on_the_host(arena: Arena) -> None:
    """Where core_pattern names a program, a limit of 0 on core dumps does not keep root from starting it; 1 does."""
    code = """
import resource
print(resource.getrlimit(resource.RLIMIT_CORE))
zero = (ctypes.c_ulong * 2)(0, 0)
for arguments in ((160, 4, zero), (302, 0, 4, zero, 0), (302, 0, ctypes.c_long(4 + (1 << 32)), zero, 0)):
    print(syscall(*arguments))
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
    first, *answers, last = output(await arena.probe(code)).splitlines()
    assert first == last == "(1, 1)"
    assert set(answers) <= {"EPERM", "ENOSYS"}


@pytest.mark.parametrize("persona", ["0x0040000", "0x0400000", "0x0000008"])
async def test_cannot_make_its_memory_predictable_or_executable(arena: Arena, persona: str) -> None:
    """ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, and Linux' idea of another system."""
    assert output(await arena.probe(f"call('personality', {persona})")) == "'ENOSYS'"


@on_x86
async def test_cannot_become_a_child_of_what_is_outside(arena: Arena) -> None:
    """CLONE_PARENT would make the template, or the container's first process, a parent to foreign code."""
    code = """
pid = syscall(56, ctypes.c_ulong(0x8000 | 17), 0, 0, 0, 0)
if pid == 0:
    os._exit(0)
print(pid if isinstance(pid, str) else 'child', attempt(os.waitpid, -1, os.WNOHANG))
"""
    answer = output(await arena.attack(code))
    if arena.gvisor:  # it does not know the flag: an ordinary child
        assert answer.startswith("child")
    else:  # a container's first process reaps what is not its kernel
        assert answer == ("child ECHILD" if arena.contained else "EINVAL ECHILD")


async def test_threads_and_programs_have_no_more_rights(arena: Arena) -> None:
    code = """
import subprocess, threading
found = []
def look():
    found.append(call('unshare', 0x10000000))
    found.append([line for line in open('/proc/thread-self/status') if line.startswith('Seccomp:')])
thread = threading.Thread(target=look); thread.start(); thread.join()
look()
program = "import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))"
print(found[0], found[2], found[1] == found[3], subprocess.check_output([sys.executable, '-c', program], text=True))
"""
    assert output(await arena.probe(code)).split() == ["EPERM", "EPERM", "True", "-1"]


async def test_a_set_uid_file_of_its_own_gives_nothing(arena: Arena) -> None:
    code = """
import shutil, subprocess
shutil.copy(shutil.which('id'), '/home/kernel/id')
os.chmod('/home/kernel/id', 0o6755)
print(os.getuid() == int(subprocess.check_output(['/home/kernel/id', '-u'])))
print(attempt(os.setxattr, '/home/kernel/id', 'security.capability', bytes(20)))
"""
    same, capability = output(await arena.attack(code)).split()
    assert same == "True"
    assert capability in ("EPERM", "EACCES", "EINVAL", "EOPNOTSUPP", "ENOTSUP")
