"""What a container may use: made-up files of both versions, and limits of the real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from engine.edge import container
from engine.edge.container import free_memory, usable_cores

GROUPS = Path("/sys/fs/cgroup")
GIB = 2**30
NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def machine(folder: Path, own: str, files: Mapping[str, str], available: int = 64 * GIB) -> tuple[Path, Path]:
    """/proc and /sys/fs/cgroup: `own` is /proc/self/cgroup, and `files` are by their path."""
    proc, groups = folder / "proc", folder / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(own)
    (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    groups.mkdir()
    for name, content in files.items():
        place = groups / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content + "\n")
    return proc, groups


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        pytest.param("0::/\n", {}, 64, id="no limit"),
        pytest.param("0::/\n", {"cpu.max": "max 100000"}, 64, id="v2 without a quota"),
        pytest.param("0::/\n", {"cpu.max": "200000 100000"}, 2, id="v2"),
        pytest.param("0::/\n", {"cpu.max": "150000 100000"}, 2, id="rounded up"),
        pytest.param("0::/\n", {"cpu.max": "1000 100000"}, 1, id="at least one"),
        pytest.param("0::/\n", {"cpu.max": "12800000 100000"}, 64, id="more than the affinity"),
        pytest.param(
            "0::/kubepods/pod1/c1\n",
            {"kubepods/pod1/cpu.max": "300000 100000", "kubepods/pod1/c1/cpu.max": "max 100000"},
            3,
            id="a limit of the Pod holds for its containers",
        ),
        pytest.param("0::/../other\n", {"cpu.max": "200000 100000"}, 2, id="outside of the namespace"),
        pytest.param(
            "4:cpu,cpuacct:/docker/a\n0::/\n",
            {"cpu/docker/a/cpu.cfs_quota_us": "250000", "cpu/docker/a/cpu.cfs_period_us": "100000"},
            3,
            id="v1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/a\n",
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            2,
            id="v1 whose own group is what is mounted",
        ),
        pytest.param(
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            64,
            id="v1 without a quota",
        ),
    ],
)
def test_cores_are_the_smaller_of_affinity_and_quota(
    tmp_path: Path, own: str, files: dict[str, str], cores: int
) -> None:
    assert usable_cores(*machine(tmp_path, own, files)) == cores


STAT = f"anon {GIB}\ninactive_file {4 * GIB}\nactive_file {2 * GIB}\nslab 5"
STAT_V1 = f"cache 7\ninactive_file 1\ntotal_inactive_file {4 * GIB}\ntotal_active_file {2 * GIB}"


@pytest.mark.parametrize(
    ("own", "files", "free"),
    [
        pytest.param("0::/\n", {}, 64 * GIB, id="no limit"),
        pytest.param("0::/\n", {"memory.max": "max", "memory.current": "5"}, 64 * GIB, id="v2 without"),
        pytest.param(
            "0::/\n",
            {"memory.max": f"{8 * GIB}", "memory.current": f"{7 * GIB}", "memory.stat": STAT},
            7 * GIB,
            id="v2: file cache is free",
        ),
        pytest.param(
            "0::/\n",
            {"memory.max": f"{8 * GIB}", "memory.current": f"{GIB}"},
            7 * GIB,
            id="v2 without memory.stat",
        ),
        pytest.param("0::/\n", {"memory.max": "1000", "memory.current": "5000"}, 0, id="nothing left"),
        pytest.param(
            "0::/a/b\n",
            {
                "a/memory.max": f"{2 * GIB}",
                "a/memory.current": f"{GIB}",
                "a/b/memory.max": f"{9 * GIB}",
                "a/b/memory.current": "0",
            },
            GIB,
            id="what the group above leaves",
        ),
        pytest.param(
            "9:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": f"{8 * GIB}",
                "memory/a/memory.usage_in_bytes": f"{7 * GIB}",
                "memory/a/memory.stat": STAT_V1,
                "memory/memory.limit_in_bytes": NO_LIMIT_V1,
                "memory/memory.usage_in_bytes": f"{30 * GIB}",
            },
            7 * GIB,
            id="v1",
        ),
    ],
)
def test_free_memory_is_what_machine_and_groups_can_still_give(
    tmp_path: Path, own: str, files: dict[str, str], free: int
) -> None:
    assert free_memory(*machine(tmp_path, own, files)) == free


def test_a_machine_that_has_less_than_its_groups_allow_gives_what_it_has(tmp_path: Path) -> None:
    files = {"memory.max": f"{8 * GIB}", "memory.current": "0"}
    assert free_memory(*machine(tmp_path, "0::/\n", files, available=GIB)) == GIB


@pytest.mark.usefixtures("many_cores")
def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    proc, _ = machine(tmp_path, "", {})
    (proc / "self" / "cgroup").unlink()
    assert (usable_cores(proc, tmp_path / "none"), free_memory(proc, tmp_path / "none")) == (64, 64 * GIB)


def group(controller: str) -> Iterator[Path]:
    """A control group of the kernel's own, version 1, which goes with the test."""
    folder = GROUPS / controller / f"halimede-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here ({error})")
    yield folder
    folder.rmdir()


@pytest.fixture
def cpu_group() -> Iterator[Path]:
    yield from group("cpu")


@pytest.fixture
def memory_group() -> Iterator[Path]:
    yield from group("memory")


def told_in(folder: Path, first: str = "") -> dict[str, int]:
    """The output of a process of that group, once it has done what is asked."""
    join = f"open({str(folder / 'cgroup.procs')!r}, 'w').write('0')"
    run = f"import runpy; runpy.run_path({str(container.__file__)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", f"{join}\n{first}\n{run}"], capture_output=True, text=True, check=True
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_a_quota_that_the_kernel_enforces_is_known(cpu_group: Path) -> None:
    assert told_in(cpu_group)["cores"] == len(os.sched_getaffinity(0))
    (cpu_group / "cpu.cfs_quota_us").write_text("50000")
    assert told_in(cpu_group)["cores"] == 1


def test_file_cache_that_the_kernel_charges_to_a_group_is_free(memory_group: Path, tmp_path: Path) -> None:
    """48 MiB of 64 are of a file that was just written and read."""
    (memory_group / "memory.limit_in_bytes").write_text(str(64 * 2**20))
    file = tmp_path / "file"
    fill = (
        f"import os; f = open({str(file)!r}, 'wb'); f.write(bytes(48 << 20)); f.flush(); os.fsync(f.fileno())"
    )
    told = told_in(memory_group, fill)["free_memory"]
    assert int((memory_group / "memory.usage_in_bytes").read_text()) > 40 * 2**20
    assert 40 * 2**20 < told < 64 * 2**20
