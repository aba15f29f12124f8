"""What cgroups a process may use is found out by looking; its kernels' groups say what was asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from groups import available, found_without, give, groups_of
from pools import pool_config

from kernel_pool import cgroups
from kernel_pool.cgroup_groups import KernelGroup, PlaceGroups
from kernel_pool.cgroups import Cgroups, Hierarchy, find
from kernel_pool.kernel_limits import cgroups_for, limit_memory, make_group
from kernel_pool.pool import Pool
from kernel_pool.types import IsolationUnavailable, Limits, StartFailed

LIMITS = Limits(memory_mb=200, disk_mb=16, processes=40, cpus=0.5)


def machine(folder: Path, mounts: dict[str, str], own: dict[str, str]) -> tuple[Path, Path]:
    """Files as /proc has them. `mounts`: folder to its kind ("cgroup2") or controllers; `own`: controllers to group."""
    mountinfo, groups = folder / "mountinfo", folder / "cgroup"
    lines = []
    for point, names in mounts.items():
        kind, options = ("cgroup2", "rw") if names == "cgroup2" else ("cgroup", f"rw,{names}")
        lines.append(f"31 23 0:28 / {point} rw,relatime shared:9 - {kind} {kind} {options}\n")
    mountinfo.write_text("".join(lines))
    groups.write_text("".join(f"{number}:{names}:{group}\n" for number, (names, group) in enumerate(own.items())))
    return mountinfo, groups


def group_of_version_two(folder: Path, *, offers: str = "cpu memory pids", gives: str = "cpu memory pids") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(f"{offers}\n")
    (folder / "cgroup.subtree_control").write_text(f"{gives}\n")
    (folder / "cgroup.procs").write_text("")
    return folder


def test_version_one_is_used_controller_by_controller(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "pids", "freezer"):
        (tmp_path / name / "own group").mkdir(parents=True)
    mounts = {f"{tmp_path}/{name}": name for name in ("cpu,cpuacct", "memory", "pids", "freezer")}
    own = {"cpu,cpuacct": "/own group", "memory": "/own group", "pids": "/own group", "freezer": "/own group"}
    found = find(*machine(tmp_path, mounts, own))
    assert found.problem == ""
    assert found.summary() == "cgroup v1 (cpu, freezer, memory, pids)"
    assert {hierarchy.folder.parent.name for hierarchy in found.hierarchies} == {Path(point).name for point in mounts}
    assert {hierarchy.folder.name for hierarchy in found.hierarchies} == {"own group"}


def test_version_two_is_used_below_the_group_of_this_process(tmp_path: Path) -> None:
    group = group_of_version_two(tmp_path / "fs" / "user.slice" / "gateway.scope")
    found = find(*machine(tmp_path, {f"{tmp_path}/fs": "cgroup2"}, {"": "/user.slice/gateway.scope"}))
    assert found == Cgroups((Hierarchy(2, group, frozenset({"cpu", "memory", "pids", "freezer"})),))
    assert found.summary() == "cgroup v2 (cpu, freezer, memory, pids)"


def test_a_hybrid_machine_is_limited_by_version_one_and_freezes_by_version_two(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "freezer").mkdir()
    group_of_version_two(tmp_path / "unified", offers="", gives="")
    mounts = {f"{tmp_path}/{name}": name for name in ("memory", "freezer")} | {f"{tmp_path}/unified": "cgroup2"}
    found = find(*machine(tmp_path, mounts, {"memory": "/", "freezer": "/", "": "/"}))
    assert found.summary() == "cgroup v1 (memory), v2 (freezer)"
    assert "no controller pids is given" in found.problem


def test_controllers_that_are_offered_are_passed_on(tmp_path: Path) -> None:
    group = group_of_version_two(tmp_path / "fs", gives="")
    find(*machine(tmp_path, {f"{tmp_path}/fs": "cgroup2"}, {"": "/"}))
    # the last write stands: a real group adds up what it is told
    assert (group / "cgroup.subtree_control").read_text() == "+pids"


def test_a_group_that_systemd_delegated_with_a_subgroup_for_the_gateway_is_used_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = group_of_version_two(tmp_path / "fs" / "omniops.service")
    own = group_of_version_two(unit / "gateway", gives="")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    mountinfo = machine(tmp_path, {f"{tmp_path}/fs": "cgroup2"}, {"": "/omniops.service/gateway"})
    monkeypatch.setattr(cgroups, "_has_attribute", lambda path, name: path == unit and name == "user.delegate")
    assert [hierarchy.folder for hierarchy in find(*mountinfo).hierarchies] == [unit]


def test_a_gateway_alone_in_its_group_makes_room_for_its_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux refuses to pass controllers on from a group that holds processes."""
    own = group_of_version_two(tmp_path / "fs", gives="")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    write = Path.write_text

    def refusing(path: Path, text: str, **options: str) -> int:
        if path.name == "cgroup.subtree_control" and str(os.getpid()) in (own / "cgroup.procs").read_text():
            raise OSError(16, "Device or resource busy")
        if path == own / "omniops-gateway" / "cgroup.procs":
            write(own / "cgroup.procs", "")
        if path.name == "cgroup.subtree_control":
            text = f"{path.read_text()} {text[1:]}"
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", refusing)
    found = find(*machine(tmp_path, {f"{tmp_path}/fs": "cgroup2"}, {"": "/"}))
    assert (own / "omniops-gateway" / "cgroup.procs").read_text() == str(os.getpid())
    assert found.problem == ""
    assert found.controllers == {"cpu", "memory", "pids", "freezer"}


def test_a_group_that_holds_others_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = group_of_version_two(tmp_path / "fs", gives="")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    write = Path.write_text

    def refusing(path: Path, text: str, **options: str) -> int:
        if path.name == "cgroup.subtree_control":
            raise OSError(16, "Device or resource busy")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", refusing)
    found = find(*machine(tmp_path, {f"{tmp_path}/fs": "cgroup2"}, {"": "/"}))
    assert not (own / "omniops-gateway").exists()
    assert "no controller memory is given" in found.problem


def test_what_may_not_be_written_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(cgroups, "_writable", lambda folder: False)
    found = find(*machine(tmp_path, {f"{tmp_path}/memory": "memory"}, {"memory": "/"}))
    assert found.hierarchies == ()
    assert f"memory: {tmp_path}/memory cannot be written" in found.problem
    assert "Delegate=yes" in found.remedy
    assert found.summary() == "no cgroup"


def test_root_has_cgroups_unless_the_machine_has_none_to_write() -> None:
    """Tests that need them are left out where there are none: not where they were only not found."""
    found = find()
    if os.getuid() == 0 and any(os.access(path, os.W_OK) for path in Path("/sys/fs/cgroup").glob("*/cgroup.procs")):
        assert found.hierarchies
    assert bool(found.hierarchies) == available("any")


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    found = find(*machine(tmp_path, {}, {}))
    assert found.hierarchies == ()
    assert "no controller memory is given to this process" in found.problem


def test_required_and_missing_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, found_without(tmp_path, " cgroup "))
    assert cgroups_for("off") == Cgroups(())
    cgroups_for("auto")
    with pytest.raises(IsolationUnavailable, match=r"cgroups that are required: .*no controller memory.*Delegate=yes"):
        cgroups_for("require")


def test_limits_are_written_as_version_two_has_them(tmp_path: Path) -> None:
    """In a tree of plain files: this test tells what is written, not that Linux keeps to it."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    names = ("pids.max", "cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs")
    for name in (*names, "cgroup.freeze", "cgroup.kill"):
        (folder / name).write_text("")
    group = KernelGroup("kernel", (Hierarchy(2, tmp_path, frozenset({"cpu", "memory", "pids", "freezer"})),))
    group.limit_processes(40)
    group.limit_cpu(0.5)
    limit_memory(group, LIMITS, baseline=100)
    group.join(4711)
    group.freeze()
    written = {name: (folder / name).read_text() for name in (*names, "cgroup.freeze")}
    assert written == {
        "pids.max": "40",
        "cpu.max": "50000 100000",
        "memory.max": str(100 + (200 + 16 + 48) * 2**20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cgroup.procs": "4711",
        "cgroup.freeze": "1",
    }
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 1\n")
    (folder / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert group.out_of_memory() == 3
    assert group.frozen


@pytest.fixture
def groups(runtime_dir: Path) -> PlaceGroups:
    """Of a place on this machine, which must allow it."""
    runtime_dir.mkdir()
    place = PlaceGroups(find(), runtime_dir)
    place.open()
    return place


@pytest.mark.cgroup("any")
def test_limits_hold_in_real_groups(groups: PlaceGroups) -> None:
    group = make_group(groups, "kernel", LIMITS)
    try:
        limit_memory(group, LIMITS, baseline=0)
        expected = {
            ("pids", 1): ("pids.max", "40"),
            ("cpu", 1): ("cpu.cfs_quota_us", "50000"),
            ("memory", 1): ("memory.limit_in_bytes", str(264 * 2**20)),
            ("pids", 2): ("pids.max", "40"),
            ("cpu", 2): ("cpu.max", "50000 100000"),
            ("memory", 2): ("memory.max", str(264 * 2**20)),
        }
        for controller in ("pids", "cpu", "memory"):
            found = group.folder(controller)
            assert found is not None
            name, value = expected[controller, found[1]]
            assert (found[0] / name).read_text().strip() == value
    finally:
        groups.close()
    assert not any(folder.exists() for folder in groups.folders)


@pytest.mark.cgroup("any")
async def test_groups_go_with_their_kernel_and_with_the_pool(runtime_dir: Path) -> None:
    pool = Pool(pool_config(runtime_dir))
    await pool.start()
    try:
        kernel = await pool.lease()
        places = groups_of(runtime_dir)
        assert places
        assert all((place / kernel.id).is_dir() for place in places)
        joined = Path(f"/proc/{kernel.pid}/cgroup").read_text()
        assert joined.count(f"/{places[0].name}/{kernel.id}\n") == len(places)
        await pool.release(kernel)
        assert not any((place / kernel.id).exists() for place in places)
    finally:
        await pool.close()
    assert not any(place.exists() for place in places)


@pytest.mark.cgroup("any")
def test_what_a_gateway_before_left_is_removed_wherever_it_was(groups: PlaceGroups, runtime_dir: Path) -> None:
    groups.make("left")
    folders = groups.folders
    # another gateway, in other groups: there are none at all here
    later = PlaceGroups(Cgroups(()), runtime_dir)
    later.open()
    assert not any(folder.exists() for folder in folders)
    later.close()
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.cgroup("any")
def test_a_record_that_names_other_groups_is_not_believed(groups: PlaceGroups, runtime_dir: Path) -> None:
    victim = groups.folders[0].with_name("omniops-victim")
    victim.mkdir()
    try:
        (runtime_dir / "cgroups").write_text(f"1 memory {victim}\n")
        groups.close()
        assert victim.is_dir()
    finally:
        victim.rmdir()


@pytest.mark.cgroup("any")
def test_kernels_that_live_keep_their_groups_and_are_thawed(groups: PlaceGroups, runtime_dir: Path) -> None:
    group = groups.make("living")
    groups.make("dead")
    group.freeze()
    later = PlaceGroups(find(), runtime_dir)
    later.open(living=["living"])
    try:
        found = later.of("living")
        assert found is not None
        assert found.hierarchies == group.hierarchies
        assert not found.frozen
        assert later.of("dead") is None
    finally:
        later.close()


@pytest.mark.cgroup("any")
def test_a_group_that_cannot_be_made_is_told(groups: PlaceGroups) -> None:
    group = groups.make("twice")
    with pytest.raises(StartFailed, match=r"no cgroup can be made for kernel twice: .*File exists"):
        groups.make("twice")
    groups.close()
    assert group.remove()
