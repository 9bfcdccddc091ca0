"""Shared-memory regions: those of the dead are removed, those of the living stay."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from launcher import shared_memory


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_claim_leaves_nothing(tmp_path: Path) -> None:
    with shared_memory.claim(tmp_path) as claim:
        (tmp_path / f"{claim.prefix}region").touch()
        assert shared_memory.remove_leftovers(tmp_path) == 0
        assert _names(tmp_path) == {f"{claim.prefix}lock", f"{claim.prefix}region"}
    assert not _names(tmp_path)


def test_a_claim_waits_for_a_process_that_is_dying(tmp_path: Path) -> None:
    """Seen: the steps of a killed tritonserver, killed too, held their regions for a moment more."""
    with shared_memory.claim(tmp_path) as claim:
        (tmp_path / f"{claim.prefix}region").touch()
        program = "import sys, time; print(flush=True); time.sleep(0.3)"
        dying = subprocess.Popen(
            [sys.executable, "-c", program], pass_fds=[claim.lock], stdout=subprocess.PIPE
        )
        assert dying.stdout
        assert dying.stdout.readline()
    with dying:
        assert not _names(tmp_path)


def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path: Path) -> None:
    dead, lost, live = (f"halimede_{pid}_0123abcd_" for pid in (1, 2, 3))
    for name in (f"{dead}lock", f"{dead}a", f"{dead}b", f"{lost}a", f"{live}lock", f"{live}a"):
        (tmp_path / name).touch()
    others = {"triton_python_backend_shm_region_1", "halimede_notes", "sem.x"}
    for name in others:
        (tmp_path / name).touch()
    with (tmp_path / f"{live}lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert shared_memory.remove_leftovers(tmp_path) == 3
    assert _names(tmp_path) == others | {f"{live}lock", f"{live}a"}
