"""From inside a cell: mounts, namespaces, tracing, system calls by side doors, tricks with /proc. All must fail."""

from __future__ import annotations

import os
import platform
from ast import literal_eval

import pytest
from attack import Arena, error, output

pytestmark = pytest.mark.asyncio(loop_scope="module")

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system call numbers of x86-64")


async def test_cannot_write_to_the_system(arena: Arena) -> None:
    code = """
places = [
    '/x', '/usr/x', '/usr/bin/python3', '/etc/passwd', '/dev/x', '/ipc/x', '/run/kernels/x', '/var/tmp/x', '/proc/x',
    '/opt/omniops/sandbox/kernel.py', '/opt/omniops/files/x', '/opt/omniops/packages/0/x', f'{sys.prefix}/x',
    f'{sys.prefix}/lib/python3.11/os.py', '/home/x', '/mnt/x',
]
for place in places:
    print(place, attempt(os.open, place, os.O_WRONLY | os.O_CREAT))
"""
    refused = dict(line.split() for line in output(await arena.attack(code)).splitlines())
    assert len(refused) >= 15
    assert {place: answer for place, answer in refused.items() if answer not in ("EROFS", "EACCES", "ENOENT")} == {}


async def test_cannot_change_its_channels_folder(arena: Arena) -> None:
    code = """
print(attempt(os.unlink, '/ipc/shell'), attempt(os.rename, '/ipc/shell', '/ipc/y'), attempt(os.chmod, '/ipc', 0o777))
import socket
print(attempt(socket.socket(socket.AF_UNIX).bind, '/ipc/broker.sock'))
"""
    answers = output(await arena.attack(code)).split()
    assert len(answers) == 4
    assert set(answers) <= ({"EACCES", "EPERM"} if arena.contained else {"EROFS"})


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
    assert output(await arena.attack(code)) == "'EPERM'"


@on_x86
@pytest.mark.parametrize(
    ("number", "answer"),
    [
        pytest.param(321, "EPERM", id="bpf"),
        pytest.param(298, "EPERM", id="perf_event_open"),
        pytest.param(250, "EPERM", id="keyctl"),
        pytest.param(425, "EPERM", id="io_uring_setup"),
        pytest.param(323, "EPERM", id="userfaultfd"),
        pytest.param(304, "EPERM", id="open_by_handle_at"),
        pytest.param(438, "EPERM", id="pidfd_getfd"),
        pytest.param(428, "EPERM", id="open_tree"),
        pytest.param(442, "EPERM", id="mount_setattr"),
        pytest.param(175, "EPERM", id="init_module"),
        pytest.param(246, "EPERM", id="kexec_load"),
        pytest.param(435, "ENOSYS", id="clone3"),
        pytest.param(317, "ENOSYS", id="seccomp"),
        pytest.param(154, "ENOSYS", id="modify_ldt"),
        pytest.param(999, "ENOSYS", id="unknown"),
    ],
)
async def test_calls_outside_the_allow_list_are_refused(arena: Arena, number: int, answer: str) -> None:
    assert output(await arena.attack(f"syscall({number}, 0, 0, 0, 0, 0)")) == repr(answer)


@on_x86
@pytest.mark.parametrize("flag", ["0x10000000", "0x20000000", "0x00020000", "0x40000000", "0x04000000", "0x02000000"])
async def test_clone_makes_no_namespaces(arena: Arena, flag: str) -> None:
    assert output(await arena.attack(f"syscall(56, ctypes.c_ulong({flag} | 17), 0, 0, 0, 0)")) == "'EPERM'"


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
    assert output(await arena.attack(code)) in ({"SIGSYS", "0"} if arena.gvisor else {"SIGSYS"})


async def test_has_no_capabilities_and_gets_none(arena: Arena) -> None:
    code = """
import subprocess
wanted = ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')
for text in (open('/proc/self/status').read(), subprocess.check_output(['cat', '/proc/self/status'], text=True)):
    print(*{line.split()[1] for line in text.splitlines() if line.startswith(wanted)})
"""
    assert output(await arena.attack(code)).splitlines() == ["0" * 16, "0" * 16]


@pytest.mark.parametrize(("kind", "device"), [(0o60000, (254, 0)), (0o20000, (1, 2))], ids=["disk", "kmem"])
async def test_cannot_make_a_device_that_works(arena: Arena, kind: int, device: tuple[int, int]) -> None:
    code = f"""
print(attempt(os.mknod, '/tmp/device', {kind} | 0o600, os.makedev(*{device})))
print(attempt(os.open, '/tmp/device', os.O_RDWR))
"""
    answers = output(await arena.attack(code)).split()
    # gVisor makes the file, but has no such device
    assert answers == (["None", "ENXIO"] if arena.gvisor else ["EPERM", "ENOENT"])


async def test_cannot_become_another_user(arena: Arena) -> None:
    code = """
print(os.getuid(), attempt(os.setuid, 0), attempt(os.setgid, 0), attempt(os.setgroups, [0]))
"""
    user, *answers = output(await arena.attack(code)).split()
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
    assert output(await arena.attack(code)) == "True 2"


async def test_the_root_of_process_1_is_its_own(arena: Arena) -> None:
    result = await arena.attack(
        "print(attempt(os.listdir, '/proc/1/root') in (os.listdir('/'), 'EACCES', 'ENOENT'))\n"
        "print(os.path.exists('/proc/1/root/root/.ssh'))"
    )
    assert output(result).split() == ["True", "False"]


async def test_dots_and_links_do_not_lead_out(arena: Arena) -> None:
    code = """
print(os.path.samefile('/' + '../' * 40, '/'))
os.symlink('/../../../../etc/shadow', '/tmp/link')
print(attempt(os.open, '/tmp/link', os.O_RDONLY))
print(attempt(os.open, '/proc/self/cwd/../../../../../root/.bashrc', os.O_RDONLY))
print(attempt(os.link, '/proc/self/exe', '/tmp/exe'))
"""
    own_root, shadow, profile, link = output(await arena.attack(code)).split()
    assert (own_root, shadow, link) == ("True", "ENOENT", "EXDEV")
    assert profile in ({"ENOENT", "EACCES"} if arena.contained else {"ENOENT"})


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/exe",
        "/proc/1/exe",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
        "/proc/self/setgroups",
        "/proc/self/ns/net",
    ],
)
async def test_cannot_write_through_proc(arena: Arena, path: str) -> None:
    code = f"""
def write():
    fd = os.open({path!r}, os.O_WRONLY)
    try:
        os.write(fd, b'1000 0 1')
    finally:
        os.close(fd)
print(attempt(write))
"""
    assert output(await arena.attack(code)) in {"EROFS", "EACCES", "EPERM", "ETXTBSY", "ENOENT"}


@pytest.mark.parametrize("name", ["cmdline", "keys", "kallsyms", "interrupts", "partitions", "sysrq-trigger", "kmsg"])
async def test_proc_tells_nothing_of_the_machine(arena: Arena, name: str) -> None:
    code = f"""
path = '/proc/{name}'
print(repr(open(path, 'rb').read()) if os.path.exists(path) else "b''")
"""
    shown = output(await arena.attack(code))
    if arena.gvisor and name == "cmdline":
        assert "gvisor" in shown  # of the kernel that gVisor is
    else:
        assert shown == "b''"


async def test_kernel_memory_is_out_of_reach(arena: Arena) -> None:
    code = "print([attempt(os.open, path, os.O_RDWR) for path in ('/dev/mem', '/dev/kmem', '/dev/port', '/dev/fuse')])"
    answers = literal_eval(output(await arena.attack(code)))
    assert answers[:3] == ["ENOENT", "ENOENT", "ENOENT"]
    # gVisor has a /dev/fuse of its own; without the right to mount it leads nowhere
    assert answers[3] == "ENOENT" or arena.gvisor


async def test_cannot_push_characters_into_a_terminal(arena: Arena) -> None:
    code = """
import fcntl, pty
master, slave = pty.openpty()
print(attempt(fcntl.ioctl, slave, 0x5412, b'x'))
"""
    assert output(await arena.attack(code)) == "ENOSYS"


async def test_broken_native_code_ends_its_own_kernel_only(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        result = await kernel.execute("ctypes.string_at(0)", deadline_s=30)
        assert result.status == "dead"
        assert result.exit is not None
        assert result.exit.detail == "the kernel's process crashed with SIGSEGV in native code"
        assert not os.path.exists(f"/proc/{kernel.pid}/root/ipc")


async def test_a_refused_write_says_so_plainly(arena: Arena) -> None:
    refusal = error(await arena.attack("open('/usr/x', 'w')"))
    if arena.gvisor:
        assert refusal == "PermissionError: [Errno 13] Permission denied: '/usr/x'"
    else:
        assert refusal == "OSError: [Errno 30] Read-only file system: '/usr/x'"
