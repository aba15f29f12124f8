"""The launcher: turns a process of the host's Python into the template inside its sandbox.

Started by the host in a session of its own, with nothing but three descriptors (specification, listening control
socket, log). It goes into namespaces, builds a root that holds a read-only system and nothing else of the host, and
becomes the template there. The template is process 1 of its pid namespace: when it ends, the Linux kernel ends every
process below it. The launcher itself stays outside as the template's parent, waits, and takes the template with it
when it is killed.

The same steps serve root and ordinary users; an ordinary user first makes a user namespace in which it may do them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from . import linux
from .spec import BASE, FILES, HOME, IPC, KERNELS, LIBRARIES, PACKAGES, SandboxSpec

#: What the sandbox has of its own; an ordinary user needs a user namespace first.
NAMESPACES = linux.NEW_NS | linux.NEW_IPC | linux.NEW_UTS | linux.NEW_NET | linux.NEW_CGROUP | linux.NEW_PID

_FOLDERS = (
    *("dev", "dev/shm", "dev/pts", "etc", "home", HOME[1:], IPC[1:], "mnt", "opt", BASE[1:], f"{BASE}/sandbox"[1:]),
    *(FILES[1:], PACKAGES[1:], "proc", "run", KERNELS[1:], "tmp", "var", "var/tmp"),
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_ETC = {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nkernel:x:1000:1000:kernel:/home/kernel:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nkernel:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost kernel\n",
    "hostname": "kernel\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}
#: Of the host's /etc: how to find libraries, and where the system's links point.
_ETC_COPIED = ("ld.so.cache",)
_ETC_BOUND = ("alternatives",)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_START_TEMPLATE = "import sys; sys.path[:0] = sys.argv[3:]; from sandbox.template import main; main(*sys.argv[1:3])"


def main(spec_fd: str, listener_fd: str) -> None:
    """Never returns: ends with the template's exit status."""
    spec = SandboxSpec.read(int(spec_fd))
    # the one who listens is the socket's owner: who connects later learns whom to end
    with socket.socket(fileno=os.dup(int(listener_fd))) as listener:
        listener.listen()
    # as descriptors: of the host's folders this process sees none from here on
    groups = [(os.open(os.path.dirname(path), _FOLDER), os.path.basename(path)) for path in spec.cgroups]
    uid, gid = os.getuid(), os.getgid()
    if spec.rootless:
        linux.unshare(linux.NEW_USER)
        linux.map_user(0, uid, gid)
    linux.unshare(NAMESPACES)
    template = os.fork()
    if template:
        os.close(int(listener_fd))
        os.close(int(spec_fd))
        _, status = os.waitpid(template, 0)
        for parent, name in groups:
            remove_groups(parent, name)
        os._exit(min(os.waitstatus_to_exitcode(status) & 0xFF, 0xFF))
    linux.die_with_parent(signal.SIGKILL)
    build_root(spec)
    arguments = ["-I", "-S", "-c", _START_TEMPLATE, spec_fd, listener_fd, BASE, *spec.package_paths()]
    os.execve(spec.python, [spec.python, *arguments], environment(spec))  # noqa: S606


def remove_groups(parent: int, name: str) -> None:
    """Remove a cgroup of `parent`, an open folder, with the groups in it; all their processes have ended.

    For kernels whose gateway is gone as well; a gateway that lives finds nothing left to remove.
    """
    with contextlib.suppress(OSError):
        group = os.open(name, _FOLDER, dir_fd=parent)
        for entry in os.scandir(group):
            if entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.rmdir(entry.name, dir_fd=group)
        os.close(group)
        os.rmdir(name, dir_fd=parent)


def environment(spec: SandboxSpec) -> dict[str, str]:
    """The whole environment of template and kernels: nothing is inherited from the host."""
    return {
        "HOME": HOME,
        "USER": "kernel",
        "LOGNAME": "kernel",
        "SHELL": "/bin/sh",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "TMPDIR": "/tmp",  # noqa: S108 the sandbox's own
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONPATH": os.pathsep.join(spec.package_paths()),
        "PYTHONDONTWRITEBYTECODE": "1",
        **LIBRARIES,
        # pyarrow's allocator would start a thread on import, which no fork would have
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }


def build_root(spec: SandboxSpec) -> None:
    """Mount the sandbox's root on `spec.root`, fill it, enter it, make it read-only."""
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    root = spec.root
    linux.mount("tmpfs", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=4m,nr_inodes=4096,mode=755")
    os.umask(0o022)
    for folder in _FOLDERS:
        os.mkdir(f"{root}/{folder}")
    _show_system(root)
    _show_prefix(root, spec.prefix)
    linux.bind(spec.sandbox, f"{root}{BASE}/sandbox", read_only=True)
    linux.bind(spec.files, f"{root}{FILES}", read_only=True)
    for source, target in zip(spec.packages, spec.package_paths(), strict=True):
        os.mkdir(f"{root}{target}")
        linux.bind(source, f"{root}{target}", read_only=True)
    linux.bind(spec.kernels, f"{root}{KERNELS}", read_only=False)
    _make_etc(root)
    _make_devices(root)
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", f"{root}/proc", "proc", flags)
    # for what is imported into the template; every kernel covers it with its own
    options = "size=1m,nr_inodes=256,mode=1777"
    linux.mount("tmpfs", f"{root}/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)  # noqa: S108
    linux.enter_root(root)
    linux.set_mount_attributes("/", linux.ATTR_RDONLY)


def _show_system(root: str) -> None:
    os.mkdir(f"{root}/usr")
    linux.bind("/usr", f"{root}/usr", read_only=True)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        source = f"/{name}"
        if os.path.islink(source):
            os.symlink(os.readlink(source), f"{root}{source}")
        elif os.path.isdir(source):
            os.mkdir(f"{root}{source}")
            linux.bind(source, f"{root}{source}", read_only=True)


def _show_prefix(root: str, prefix: str) -> None:
    """Show the interpreter under its own path; of the folders above it (somebody's home, maybe) only the names."""
    if os.path.commonpath([prefix, "/usr"]) == "/usr":
        return
    os.makedirs(f"{root}{prefix}", exist_ok=True)
    linux.bind(prefix, f"{root}{prefix}", read_only=True)


def _make_etc(root: str) -> None:
    for name, text in _ETC.items():
        with open(f"{root}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    for name in _ETC_COPIED:
        if os.path.isfile(f"/etc/{name}"):
            with open(f"/etc/{name}", "rb") as source, open(f"{root}/etc/{name}", "wb") as target:
                target.write(source.read())
    for name in _ETC_BOUND:
        if os.path.isdir(f"/etc/{name}"):
            os.mkdir(f"{root}/etc/{name}")
            linux.bind(f"/etc/{name}", f"{root}/etc/{name}", read_only=True)


def _make_devices(root: str) -> None:
    for name in _DEVICES:
        with open(f"{root}/dev/{name}", "w", encoding="utf-8"):
            pass
        linux.bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=True, devices=True)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")
