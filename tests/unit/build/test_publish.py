from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from build.errors import BadInput, BuildError
from build.publish import Rename, Slot, place, staged, write_new
from tests.fakes import network_locks
from tests.paths import PYTHONPATH


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model_engine" / "1"


def publish(target: Path, text: str, force: bool = False, rename: Rename = Path.replace) -> None:
    with staged(target, force, rename) as slot:
        (slot.staging / "file").write_text(text)
        slot.publish()


def fail(target: Path, fault: BaseException) -> None:
    with staged(target, force=True) as slot:
        (slot.staging / "file").write_text("half")
        raise fault


def names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_the_target_appears_whole(target: Path) -> None:
    with staged(target, force=False) as slot:
        (slot.staging / "file").write_text("new")
        assert not target.exists()
        slot.publish()
    assert (target / "file").read_text() == "new"
    assert names(target) == ["1"]


def test_a_placeholder_is_no_engine(target: Path) -> None:
    target.mkdir(parents=True)
    (target / ".gitkeep").touch()
    publish(target, "new")
    assert (target / "file").read_text() == "new"


def test_an_engine_is_not_overwritten_unless_asked(target: Path) -> None:
    publish(target, "old")
    with pytest.raises(BadInput, match=r"exists: add --force"), staged(target, force=False):
        pytest.fail("work began")
    publish(target, "new", force=True)
    assert (target / "file").read_text() == "new"
    assert names(target) == ["1"]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_a_failed_build_leaves_the_old_engine_and_nothing_else(target: Path, fault: BaseException) -> None:
    publish(target, "old")
    with pytest.raises(type(fault)):
        fail(target, fault)
    assert (target / "file").read_text() == "old"
    assert names(target) == ["1"]


def test_a_failed_first_build_leaves_no_trace(target: Path) -> None:
    with pytest.raises(OSError, match="no space"):
        fail(target, OSError(errno.ENOSPC, "no space"))
    assert not target.parent.exists()


def test_when_the_rename_fails_the_old_engine_is_back(target: Path) -> None:
    publish(target, "old")

    def fails_on_the_new(source: Path, destination: Path) -> None:
        if source.name.startswith(".building"):
            raise OSError(errno.EIO, "input/output error")
        source.replace(destination)

    with pytest.raises(OSError, match="input/output"):
        publish(target, "new", force=True, rename=fails_on_the_new)
    assert (target / "file").read_text() == "old"
    assert names(target) == ["1"]


def test_what_a_killed_build_left_is_cleaned(target: Path) -> None:
    stale = target.with_name(".building-1")
    stale.mkdir(parents=True)
    (stale / "half").write_text("half")
    publish(target, "new")
    assert [path.name for path in target.iterdir()] == ["file"]
    assert names(target) == ["1"]


def test_a_build_killed_between_its_two_renames_lost_nothing(target: Path) -> None:
    publish(target, "old")
    target.rename(target.with_name(".previous-1"))
    with staged(target, force=True):
        assert (target / "file").read_text() == "old"
    assert names(target) == ["1"]


_BUILDS = """
import sys
from pathlib import Path
from typing import IO
from build.publish import staged
with staged(Path(sys.argv[1]), False):
    print("began", flush=True)
    sys.stdin.read()
"""


def test_two_builds_of_one_model_do_not_meet_also_where_folders_cannot_be_locked(
    target: Path, tmp_path: Path
) -> None:
    env = {**os.environ, "PYTHONPATH": PYTHONPATH, **network_locks.environment(tmp_path)}
    command = [sys.executable, "-c", _BUILDS, str(target)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as first:
        assert first.stdout
        assert first.stdout.readline() == "began\n"
        second = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert "another build is running" in second.stderr
        assert "began" not in second.stdout
        assert target.with_name(".building-1").is_dir()  # the second removed nothing of the first
    assert first.returncode == 0
    publish(target, "new")


def test_a_build_that_waited_for_nothing_leaves_no_model_folder(target: Path) -> None:
    """Triton takes every folder for a model."""
    with pytest.raises(KeyboardInterrupt), staged(target, False):
        raise KeyboardInterrupt
    assert not list(target.parent.parent.iterdir())


def test_the_lock_of_a_build_that_was_killed_is_taken_over(target: Path) -> None:
    lock = target.parent.with_name(f".{target.parent.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    publish(target, "new")
    assert not lock.exists()


def test_a_lock_that_was_removed_before_it_was_taken_is_no_lock(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the other build ends between our opening of the file and our lock of it."""
    lock, take = target.parent.with_name(f".{target.parent.name}.lock"), fcntl.flock

    def taken(file: IO[str], operation: int) -> None:
        lock.unlink()
        take(file, operation)

    monkeypatch.setattr("build.publish.fcntl.flock", taken)
    with pytest.raises(BuildError, match="another build is running"), staged(target, False):
        pass


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_new(tmp_path / "model" / "config.pbtxt", b"text")
    assert (tmp_path / "model" / "config.pbtxt").read_bytes() == b"text"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_new(tmp_path / "folder", b"text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "model"]


def test_a_slot_is_in_the_folder_of_its_target_and_triton_reads_it_as_no_version(target: Path) -> None:
    """Triton reads `3.building` as version 3, and its load fails."""
    staging = Slot(target, Path.replace).staging
    assert staging.parent == target.parent
    assert not staging.name[0].isdecimal()


def test_a_build_goes_to_the_newest_version_or_to_the_one_after_it(target: Path) -> None:
    folder = target.parent
    assert place(folder, new_version=False) == place(folder, new_version=True) == folder / "1"
    for version in ("1", "2", "10"):
        publish(folder / version, "an engine")
    (folder / "11").mkdir()  # a placeholder
    (folder / "12.old").mkdir()
    assert place(folder, new_version=False) == folder / "10"
    assert place(folder, new_version=True) == folder / "11"
