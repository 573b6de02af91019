"""Free memory of machine, container and job, room for temporary files, and rates that are of this machine's order."""

import errno
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoding_nb import _machine


@pytest.fixture
def roomy(monkeypatch):
    """A machine with 16 GB to spare."""
    memory = type("Memory", (), {"available": 16_000_000_000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


# Version of control groups: files of limit and usage, the name of cached files, and how a process names its group.
FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "9:memory:"),
    2: ("memory.max", "memory.current", "inactive_file", "0::"),
}


def put_group(folder, version, limit, usage, cached=0):
    """A memory control group as Linux shows it."""
    limits, usages, name, _ = FILES[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limits).write_text(f"{limit}\n")
    (folder / usages).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{name} {cached}\nactive_file 7\n")


@pytest.fixture
def groups(tmp_path, roomy):
    """Control groups in a folder, and the process in one of them."""

    class Groups:
        top, process = tmp_path / "cgroup", tmp_path / "self"

        def root(self, version):
            return self.top / "memory" if version == 1 else self.top

        def enter(self, version, path, *mounts):
            others = ["11:cpu,cpuacct:/elsewhere", "1:name=systemd:/elsewhere"]
            (self.process / "cgroup").write_text("\n".join([*others, f"{FILES[version][3]}{path}", ""]))
            (self.process / "mountinfo").write_text("".join(f"{mount}\n" for mount in mounts))

        def free(self):
            return _machine.free_memory(control_groups=self.top, process=self.process)

    Groups.top.mkdir()
    Groups.process.mkdir()
    return Groups()


def test_the_machine_is_the_limit_where_no_container_is(groups):
    assert groups.free() == 16_000_000_000


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_is_the_limit_where_it_allows_less(groups, version):
    put_group(groups.root(version), version, 2_000_000_000, 1_500_000_000)
    assert groups.free() == 500_000_000
    # files that the kernel keeps in memory while there is room are given back
    put_group(groups.root(version), version, 2_000_000_000, 1_500_000_000, cached=300_000_000)
    assert groups.free() == 800_000_000


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("limited", ["slurm", "slurm/job_7", "slurm/job_7/step_0", "slurm/job_7/step_0/task"])
def test_a_limit_of_any_group_above_counts(groups, version, limited):
    """Slurm limits the job, and the process is in a step of it."""
    own = "slurm/job_7/step_0/task"
    unlimited = {1: 9223372036854771712, 2: "max"}[version]
    for depth in range(1, 5):
        put_group(groups.root(version).joinpath(*own.split("/")[:depth]), version, unlimited, 400_000_000)
    put_group(groups.root(version) / "slurm/job_8", version, 10, 5)  # somebody else's
    groups.enter(version, f"/{own}")
    assert groups.free() == 16_000_000_000
    put_group(groups.root(version) / limited, version, 1_000_000_000, 400_000_000, cached=50_000_000)
    assert groups.free() == 650_000_000


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_names_its_group_from_the_hosts_root(groups, version):
    """Without a namespace, /docker/abc is mounted as the root, and the process names /docker/abc/job."""
    kind = {1: "cgroup cgroup rw,memory", 2: "cgroup2 cgroup2 rw"}[version]
    elsewhere = groups.top.parent / "other place"
    point = str(elsewhere).replace(" ", "\\040")
    groups.enter(version, "/docker/abc/job", f"31 30 0:27 /docker/abc {point} rw master:9 - {kind}")
    put_group(elsewhere / "job", version, 1_000_000_000, 400_000_000)
    assert groups.free() == 600_000_000
    put_group(elsewhere, version, 900_000_000, 400_000_000)
    assert groups.free() == 500_000_000


def test_a_limit_beyond_which_the_kernel_slows_the_process_counts(groups):
    put_group(groups.top, 2, "max", 100)
    (groups.top / "memory.high").write_text("1100\n")
    assert groups.free() == 1000


def test_a_container_above_its_limit_has_nothing_left(groups):
    put_group(groups.top, 2, 100, 150)
    assert groups.free() == 0
    put_group(groups.top, 2, 100, 150, cached=10**12)  # no more than is used
    assert groups.free() == 100


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.one_of(
            st.binary(max_size=30), st.sampled_from([b"max", b"", b"-1", b"1e9", b"5\n6", b"9" * 5000])
        ),
        min_size=5,
        max_size=5,
    )
)
def test_files_that_say_anything_break_nothing(groups, texts):
    names = ["memory.max", "memory.current", "memory.stat"]
    for name, text in zip(names, texts, strict=False):
        (groups.top / name).write_bytes(text)
    (groups.process / "cgroup").write_bytes(b"0::/" + texts[3])
    (groups.process / "mountinfo").write_bytes(b"a b c / /x - cgroup2 y z\n" + texts[4])
    assert 0 <= groups.free() <= 16_000_000_000
    assert _machine.is_memory(groups.top, process=groups.process) in (True, False)


def test_folders_in_place_of_files_break_nothing(groups):
    for path in (groups.top / "memory.max", groups.process / "cgroup", groups.process / "mountinfo"):
        path.mkdir()
    assert groups.free() == 16_000_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_limit_of_address_space_counts():
    code = """
import resource, psutil
from encoding_nb import _machine
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
free = _machine.free_memory()
assert free == _machine.address_space(), free
taken = bytearray(100_000_000)
print(free, free - _machine.free_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    free, taken = map(int, done.stdout.split())
    assert 200_000_000 < free <= 300_000_000 and 95_000_000 < taken < 110_000_000


# ---------------------------------------------------------------------- temporary files


def test_folders_that_are_memory_are_known_by_the_mount_that_holds_them(tmp_path, groups):
    mounts = [
        "1 0 8:1 / / rw - ext4 /dev/a rw",
        f"2 1 0:9 / {tmp_path}/mem rw - tmpfs t rw",
        f"3 2 8:2 / {tmp_path}/mem/disk rw - xfs /dev/b rw",
        f"4 1 0:7 / {tmp_path}/hidden rw - ramfs r rw",
        f"5 4 8:3 / {tmp_path}/hidden rw - ext4 /dev/c rw",
    ]
    groups.enter(2, "/", *mounts)
    (tmp_path / "mem" / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "mem")
    expected = {
        "mem": True,
        "mem/new": True,
        "link": True,
        "mem/disk/deep": False,
        "hidden": False,
        "memory": False,
    }
    for name, memory in expected.items():
        assert _machine.is_memory(tmp_path / name, process=groups.process) == memory, name


def test_a_temporary_array_has_its_blocks_and_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.statvfs(tmp_path)
    array = _machine.temporary_array((1000, 2000), np.float32, "The values", "take fewer", order="F")
    taken = (before.f_bfree - os.statvfs(tmp_path).f_bfree) * before.f_frsize
    array[:] = 1
    assert array.flags.f_contiguous and array.sum() == 2_000_000
    assert list(tmp_path.iterdir()) == []
    assert taken > 1_000_000  # other processes write there too


@pytest.mark.parametrize("fault", ["reported", "found while blocks are taken"])
def test_a_full_disk_is_an_error_with_sizes(tmp_path, monkeypatch, fault):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full(*where):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fault == "reported":
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 3_000_000}))
    elif hasattr(os, "posix_fallocate"):
        monkeypatch.setattr(os, "posix_fallocate", full)
    else:
        pytest.skip("no posix_fallocate")
    with pytest.raises(ValueError, match=r"The values take 0\.008 GB, .* GB are free\): take fewer\."):
        _machine.temporary_array((1000, 2000), np.float32, "The values", "take fewer")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_take_blocks_gets_a_file_without(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def cannot(*where):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot, raising=False)
    assert _machine.temporary_array((3, 2), np.float32, "The values", "take fewer").shape == (3, 2)


def test_rates_are_a_processors():
    rates = _machine.rates()
    for rate in (rates.single, rates.double, rates.elements):
        assert np.isfinite(rate) and 1e7 < rate < 1e16


def test_rates_are_the_best_of_a_few_measurements_with_that_number_of_threads(monkeypatch):
    """The first comes while the machine is busy with other things."""
    measured = iter(
        [_machine.Rates(1e9, 5e8, 1e8), _machine.Rates(9e9, 1e8, 2e8), _machine.Rates(2e9, 1e9, 1e8)]
    )
    monkeypatch.setattr(_machine, "_measured", {})
    monkeypatch.setattr(_machine, "MEASUREMENTS", 2)
    monkeypatch.setattr(_machine, "_measure", lambda: next(measured))
    threads = [8]
    monkeypatch.setattr(_machine, "n_threads", lambda: threads[0])
    assert _machine.rates() == _machine.Rates(1e9, 5e8, 1e8)
    assert _machine.rates() == _machine.rates() == _machine.Rates(9e9, 5e8, 2e8)
    threads[0] = 1
    assert _machine.rates() == _machine.Rates(2e9, 1e9, 1e8)
