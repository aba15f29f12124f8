"""The doctor tries each part for real: on this machine, and on machines that are broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_pool.container_config import DockerConfig
from kernel_pool.doctor import Finding, examine, local_parts, works
from kernel_pool.doctor_cgroups import WANTED, controllers

_EXAMINE = """
import json
from kernel_pool.doctor import local_parts
{before}
print(json.dumps([finding.to_json() for finding in local_parts(700_000)]))
"""


def broken(wrapper: list[str], before: str = "") -> dict[str, Finding]:
    """The parts as a process finds them that was put into a broken machine."""
    command = [*wrapper, sys.executable, "-c", _EXAMINE.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {item["part"]: Finding(**item) for item in json.loads(done.stdout)}


def test_every_part_of_the_local_sandbox_works_here() -> None:
    found = local_parts(700_000)
    assert {item.part: item.found for item in found if item.state != "works"} == {}
    assert {"user namespace", "network namespace", "pivot_root", "seccomp filter", "no_new_privs"} <= {
        item.part for item in found
    }


def test_no_more_user_namespaces() -> None:
    close = "open('/proc/sys/user/max_user_namespaces', 'w').write('0')"
    found = broken(["unshare", "--user", "--map-root-user"], close)
    assert found["user namespace"].found.endswith("No space left on device")
    for part in ("user namespace", "user namespace of a kernel"):
        assert found[part].state == "fails"
        assert "sysctl -w user.max_user_namespaces=15000" in found[part].remedy
    assert found["mount namespace"].state == "works"


def test_no_more_network_namespaces() -> None:
    close = "open('/proc/sys/user/max_net_namespaces', 'w').write('0')"
    found = broken(["unshare", "--user", "--map-root-user"], close)
    assert found["network namespace"].state == "fails"
    assert found["IPC namespace"].state == "works"
    assert found["network namespace"].remedy == "Namespaces are limited here; open them: sysctl -w " + (
        "user.max_net_namespaces=15000"
    )


def test_no_system_users() -> None:
    """A user namespace that knows one user: root there cannot give kernels users of their own."""
    found = broken(["unshare", "--user", "--map-root-user"])
    assert found["system user of its own"].state == "fails"
    assert found["mount namespace"].state == "works"


def test_a_filter_that_forbids_mounts() -> None:
    forbid = """
import pyseccomp
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
for name in ("mount", "pivot_root"):
    rules.add_rule(pyseccomp.ERRNO(1), name)
rules.load()
"""
    found = broken(["unshare", "--user", "--map-root-user"], forbid)
    failed = {part for part, item in found.items() if item.state == "fails"}
    assert {"file system in memory", "pivot_root", "proc of its own", "terminals of its own"} <= failed
    assert found["user namespace"].state == "works"
    assert "seccomp profile" in found["pivot_root"].remedy


def test_libseccomp_is_missing() -> None:
    found = broken([], "import sys; sys.modules['pyseccomp'] = None; import kernel_pool.seccomp")
    assert found["libseccomp"].state == "fails"
    assert found["libseccomp"].remedy == "apt-get install libseccomp2"
    assert "seccomp filter" not in found


def test_cgroups_are_told_by_controller() -> None:
    found = {controller.name: controller for controller in controllers()}
    assert tuple(found) == WANTED
    for controller in found.values():
        assert bool(controller.problem) == bool(controller.remedy)


def test_cgroups_that_cannot_be_written_are_told_with_a_command() -> None:
    code = "from kernel_pool.doctor_cgroups import *\nprint(sum(bool(c.problem and c.remedy) for c in controllers()))"
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "{sys.executable}" -c "{code}"',
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(WANTED)


async def test_a_daemon_that_is_not_there_leaves_the_local_place(tmp_path: Path) -> None:
    found = await examine(DockerConfig(host=f"unix://{tmp_path}/nobody.sock"))
    assert works(found, "local")
    assert not works(found, "docker runc")
    (daemon,) = (item for item in found if item.part == "daemon")
    assert (daemon.state, daemon.found) == ("fails", "No such file or directory")
    assert "sudo docker/setup-debian" in daemon.remedy


@pytest.mark.parametrize("place", ["docker runc", "docker runsc"])
def test_a_place_without_a_kernel_does_not_work(place: str) -> None:
    assert not works([Finding(place, "runtime", "the daemon's list", "works")], place)
