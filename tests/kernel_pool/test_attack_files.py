"""From inside a cell: files of the host, of the system, of all kernels; tricks with /proc, devices and links."""

from __future__ import annotations

import os
import sys
import tempfile
from ast import literal_eval
from pathlib import Path

import pytest
from attack import SHARED, Arena, error, output

from kernel_pool import types
from kernel_pool.sandbox import landlock

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
    refused = dict(line.split() for line in output(await arena.probe(code)).splitlines())
    assert len(refused) >= 15
    assert {place: answer for place, answer in refused.items() if answer not in ("EROFS", "EACCES", "ENOENT")} == {}


async def test_a_refused_write_says_so_plainly(arena: Arena) -> None:
    refusal = error(await arena.probe("open('/usr/x', 'w')"))
    if arena.gvisor:
        assert refusal == "PermissionError: [Errno 13] Permission denied: '/usr/x'"
    else:
        assert refusal == "OSError: [Errno 30] Read-only file system: '/usr/x'"


async def test_cannot_change_its_channels_folder(arena: Arena) -> None:
    code = """
print(attempt(os.unlink, '/ipc/shell'), attempt(os.rename, '/ipc/shell', '/ipc/y'), attempt(os.chmod, '/ipc', 0o777))
import socket
print(attempt(socket.socket(socket.AF_UNIX).bind, '/ipc/broker.sock'))
"""
    answers = output(await arena.probe(code)).split()
    assert len(answers) == 4
    assert set(answers) <= ({"EACCES", "EPERM"} if arena.contained else {"EROFS"})


@pytest.mark.parametrize(("kind", "device"), [(0o60000, (254, 0)), (0o20000, (1, 2))], ids=["disk", "kmem"])
async def test_cannot_make_a_device_that_works(arena: Arena, kind: int, device: tuple[int, int]) -> None:
    code = f"""
print(attempt(os.mknod, '/tmp/device', {kind} | 0o600, os.makedev(*{device})))
print(attempt(os.open, '/tmp/device', os.O_RDWR))
"""
    answers = output(await arena.attack(code)).split()
    # gVisor makes the file, but has no such device
    assert answers in ([["None", "ENXIO"]] if arena.gvisor else [["EPERM", "ENOENT"], ["EACCES", "ENOENT"]])


async def test_the_root_of_process_1_is_its_own(arena: Arena) -> None:
    result = await arena.probe(
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
        "/proc/sys/kernel/hotplug",
        "/proc/sys/kernel/poweroff_cmd",
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sysrq-trigger",
        "/proc/1/mem",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
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
    assert output(await arena.probe(code)) in {"EROFS", "EACCES", "EPERM", "ETXTBSY", "ENOENT"}


@pytest.mark.parametrize("name", ["cmdline", "keys", "kallsyms", "interrupts", "partitions", "sysrq-trigger", "kmsg"])
async def test_proc_tells_nothing_of_the_machine(arena: Arena, name: str) -> None:
    code = f"""
path = '/proc/{name}'
print(repr(open(path, 'rb').read()) if os.path.exists(path) else "b''")
"""
    shown = output(await arena.probe(code))
    if arena.gvisor and name == "cmdline":
        assert "gvisor" in shown  # of the kernel that gVisor is
    else:
        assert shown == "b''"


async def test_kernel_memory_is_out_of_reach(arena: Arena) -> None:
    paths = [f"/dev/{name}" for name in ("mem", "kmem", "port", "kvm", "vda", "userfaultfd", "fuse")]
    code = f"print([attempt(os.open, path, os.O_RDWR) for path in {paths}])"
    answers = literal_eval(output(await arena.probe(code)))
    assert answers[:6] == ["ENOENT"] * 6
    # gVisor has a /dev/fuse of its own; without the right to mount it leads nowhere
    assert answers[6] == "ENOENT" or arena.gvisor


async def test_cannot_find_the_hosts_files(arena: Arena) -> None:
    with tempfile.NamedTemporaryFile(prefix="gateway-secret-") as file:
        os.chmod(file.name, 0o644)
        project = Path(types.__file__).parent.parent / "pyproject.toml"
        assert project.exists()
        paths = [file.name, os.fspath(project), os.fspath(Path.home() / ".ssh"), "/etc/shadow", "/var/log"]
        paths += [] if arena.contained else ["/sys"]
        result = await arena.probe(f"print([path for path in {paths!r} if os.path.exists(path)])")
    assert output(result) == "[]"


async def test_sees_only_what_is_made_for_it(arena: Arena) -> None:
    result = await arena.probe("print(*os.listdir('/')); print(*os.listdir('/dev')); print(*os.listdir('/etc'))")
    root, dev, etc = (set(line.split()) for line in output(result).splitlines())
    if arena.contained:
        known = {"bin", "dev", "etc", "home", "ipc", "lib", "lib64", "mnt", "opt", "proc", "root", "run", "sbin", "sys"}
        assert root - known <= {"lib32", "libx32", "tmp", "usr", "var", ".dockerenv"}
        return
    made = {"bin", "dev", "etc", "home", "ipc", "lib", "mnt", "opt", "proc", "run", "sbin", "tmp", "usr", "var"}
    assert made <= root
    assert root - made <= {"lib32", "lib64", "libx32", Path(sys.base_prefix).parts[1]}
    links = {"fd", "stdin", "stdout", "stderr", "ptmx"}
    assert dev == {"null", "zero", "full", "random", "urandom", "shm", "pts"} | links
    generated = {"passwd", "group", "hosts", "hostname", "nsswitch.conf", "resolv.conf"}
    assert etc - {"ld.so.cache", "alternatives"} == generated


async def test_what_all_kernels_read_none_can_change(arena: Arena) -> None:
    """By the front door, by mapping it, and by the page cache (Dirty Pipe: CVE-2022-0847)."""
    name = f"/opt/omniops/files/{SHARED}"
    code = f"""
import mmap
name = {name!r}
print(attempt(os.chmod, name, 0o777), attempt(os.truncate, name, 0), attempt(os.unlink, name))
print(attempt(os.rename, name, name + 'x'), attempt(os.open, name, os.O_RDWR), attempt(os.utime, name))
fd = os.open(name, os.O_RDONLY)
print(attempt(mmap.mmap, fd, 4, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
reader, writer = os.pipe()
os.write(writer, bytes(65536)); os.read(reader, 65536)
print(attempt(os.splice, fd, writer, 1, 0), attempt(os.sendfile, writer, fd, 0, 1) in (1, 'ESPIPE', 'EINVAL'))
os.write(writer, b'forged by the attacker')
print(open(name).read())
"""
    refused = {"EROFS", "EACCES", "EPERM", "ENOSYS"}
    *answers, content = output(await arena.attack(code)).splitlines()
    words = " ".join(answers).split()
    assert words.pop() == "True"
    assert len(words) == 8
    assert set(words) <= refused
    assert content == output(await arena.sibling.execute(f"print(open({name!r}).read())", deadline_s=30)) != ""
    assert "forged" not in content


async def test_finds_no_control_group_to_leave_or_to_abuse(arena: Arena) -> None:
    """A release_agent would be run by root outside (CVE-2022-0492)."""
    code = """
found = []
for folder in ('/sys/fs/cgroup', '/sys', '/tmp', '/run', '/dev'):
    for where, _, files in os.walk(folder):
        for name in files:
            if name in ('release_agent', 'notify_on_release', 'cgroup.procs', 'devices.allow', 'uevent_helper'):
                found.append(attempt(os.open, os.path.join(where, name), os.O_WRONLY))
print(set(map(str, found)), call('mount', b'x', b'/tmp', b'cgroup', 0, b'memory'))
"""
    found, mounted = output(await arena.probe(code)).rsplit(" ", 1)
    assert mounted == "EPERM"
    assert literal_eval(found) if found != "set()" else True
    assert set(literal_eval(found) if found != "set()" else ()) <= {"EROFS", "EACCES", "EPERM"}


async def test_masks_are_the_real_null_device(arena: Arena) -> None:
    """What hides a file must not be a link that somebody turned elsewhere (CVE-2025-31133, -52565, -52881)."""
    code = """
import stat
found = os.lstat('/dev/null')
print(stat.S_ISCHR(found.st_mode), (os.major(found.st_rdev), os.minor(found.st_rdev)))
print(attempt(os.unlink, '/dev/null') in ('EROFS', 'EACCES', 'EPERM'))
print(attempt(os.symlink, '/proc/sys/kernel/core_pattern', '/dev/console'))
"""
    device, unlinked, linked = output(await arena.probe(code)).splitlines()
    assert (device, unlinked) == ("True (1, 3)", "True")
    assert linked in ("EROFS", "EACCES", "EPERM", "EEXIST")


async def test_no_working_folder_root_or_descriptor_leads_to_the_host(arena: Arena) -> None:
    """Leaky vessels (CVE-2024-21626): a folder of the host left open is a way to all of it."""
    with tempfile.TemporaryDirectory(prefix="marker-") as marker:
        code = f"""
found, seen = [], 0
for pid in filter(str.isdigit, os.listdir('/proc')):
    for link in ('cwd', 'root', *(f'fd/{{fd}}' for fd in attempt(os.listdir, f'/proc/{{pid}}/fd'))):
        seen += 1
        for up in range(12):
            path = f'/proc/{{pid}}/{{link}}/' + '../' * up
            if os.path.exists(path + {marker!r}):
                found.append(path)
print(found, seen > 3)
"""
        assert output(await arena.probe(code)) == "[] True"


async def test_hidden_parts_of_proc_and_sys_cannot_be_uncovered(arena: Arena) -> None:
    code = """
print([call('umount2', path, 2) for path in (b'/proc/kcore', b'/proc/sys', b'/proc/keys', b'/sys', b'/dev/null')])
print(call('mount', b'proc', b'/tmp', b'proc', 0, None), call('mount', b'sysfs', b'/tmp', b'sysfs', 0, None))
"""
    assert output(await arena.probe(code)).splitlines() == [str(["EPERM"] * 5), "EPERM EPERM"]


@pytest.mark.skipif(landlock.version() == 0, reason="this system has no Landlock")
async def test_landlock_holds_where_the_mounts_would_allow(arena: Arena) -> None:
    """Files of one's own in /proc can be written by everybody; under Landlock not even these."""
    code = """
print(attempt(os.open, '/proc/self/comm', os.O_WRONLY), attempt(os.open, '/proc/self/mem', os.O_RDWR))
os.close(os.open('/dev/null', os.O_WRONLY))
os.mkdir('/tmp/one'); os.mkdir('/tmp/two'); open('/tmp/one/file', 'w').close()
os.rename('/tmp/one/file', '/tmp/two/file')
print(os.listdir('/tmp/two'), attempt(os.mknod, '/tmp/device', 0o20600, os.makedev(1, 5)))
"""
    first, second = output(await arena.attack(code)).splitlines()
    if not arena.contained:
        assert (first, second) == ("EACCES EACCES", "['file'] EACCES")
    else:  # a container has the other layers, and no Landlock
        assert second in ("['file'] EPERM", "['file'] None")


async def test_it_is_told_neither_the_machines_name_nor_its_kernels_keys(arena: Arena) -> None:
    code = "print(os.uname().nodename, open('/proc/sys/kernel/hostname').read().strip(), open('/etc/hostname').read())"
    assert set(output(await arena.probe(code)).split()) == {"kernel"}
