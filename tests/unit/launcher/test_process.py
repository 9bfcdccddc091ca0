"""The process that the launcher watches, played by small Python programs."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from launcher.process import Log, Server
from tests.paths import ROOT

SERVER = ROOT / "server"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def _server(program: str, grace_seconds: float = 30.0, drain: Callable[[], bool] = lambda: False) -> Server:
    command = [sys.executable, "-c", program]
    return Server(command, dict(os.environ), grace_seconds=grace_seconds, drain=drain)


def _eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


OF_A_GPU = (
    'E1130 10:25:12.285302 6649 server.cc:241] "CudaDriverHelper has not been initialized."',
    (
        'E1130 10:25:14.603224 6649 ensemble_scheduler.cc:1468] "unable to create stream for my model: CUDA '
        'driver version is insufficient for CUDA runtime version"'
    ),
    (
        'W1130 10:35:54.770371 6649 pinned_memory_manager.cc:170] "failed to allocate pinned system memory: '
        'no pinned memory pool, falling back to non-pinned system memory"'
    ),
)
OTHERS = (
    'E1130 10:25:14.603224 6649 model_lifecycle.cc:654] "failed to load model: CUDA driver version"',
    "llm_engine: smollm2 runs on the kernels, level avx2",
    "",
    "no end of line",
)


def _logged(lines: Sequence[str], target: BinaryIO) -> int:
    program = f"import sys; sys.stderr.write({chr(10).join(lines)!r})"
    command = [sys.executable, "-c", program]
    return Server(command, dict(os.environ), grace_seconds=30.0, log=Log(target)).wait()


def test_the_log_leaves_out_tritons_lines_on_a_missing_gpu_and_nothing_else() -> None:
    target = io.BytesIO()
    assert _logged([*OF_A_GPU, *OTHERS], target) == 0
    assert target.getvalue().decode() == "\n".join(OTHERS)


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    """More lines than a pipe holds."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        assert _logged(["a line"] * 10_000, full) == 0


@pytest.mark.parametrize("code", [0, 1, 77])
def test_the_exit_code_passes_through(code: int) -> None:
    assert _server(f"raise SystemExit({code})").wait() == code


def test_a_signal_is_reported_as_a_shell_does() -> None:
    assert _server("import os; os.kill(os.getpid(), 9)").wait() == 128 + signal.SIGKILL


def test_a_server_that_ends_is_never_ready() -> None:
    server = _server("raise SystemExit(1)")
    assert not server.wait_ready(lambda: False)
    assert server.wait() == 1


def test_a_server_told_to_stop_is_not_waited_for() -> None:
    server = _server("import time; time.sleep(600)")
    server.stop()
    assert not server.wait_ready(lambda: True)
    assert server.wait() == 128 + signal.SIGTERM


def test_a_second_stop_kills() -> None:
    server = _server(STUBBORN)
    server.stop()
    server.stop()
    assert server.wait() in {128 + signal.SIGKILL, 128 + signal.SIGTERM}


def test_grace_runs_out(capfd: pytest.CaptureFixture[str]) -> None:
    server = _server(STUBBORN, grace_seconds=0.2)
    assert _eventually(lambda: bool(capfd.readouterr().out))
    server.stop()
    assert server.wait() == 128 + signal.SIGKILL


def test_a_drained_server_was_stopped_in_order() -> None:
    server = _server("import time; time.sleep(600)", drain=lambda: True)
    server.stop()
    assert server.wait() == 0


def test_a_server_that_could_not_be_drained_is_stopped_all_the_same() -> None:
    server = _server("import time; time.sleep(600)", drain=lambda: False)
    server.stop()
    assert server.wait() == 128 + signal.SIGTERM


def test_a_second_stop_does_not_wait_for_the_drain() -> None:
    held = threading.Event()
    server = _server("import time; time.sleep(600)", drain=held.wait)
    server.stop()
    server.stop()
    assert server.wait() == 128 + signal.SIGKILL
    held.set()


def test_what_a_server_leaves_behind_is_ended() -> None:
    """Seen: a step that waited for an answer of a killed server held Python's lock, and stayed for ever."""
    read, write = os.pipe()
    program = (
        "import os, subprocess, sys; step = [sys.executable, '-c', 'import time; time.sleep(600)']; "
        "subprocess.Popen(step, pass_fds=[int(sys.argv[1])]); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(write)]
    server = Server(command, dict(os.environ), grace_seconds=30, inherited=[write])
    os.close(write)
    assert server.wait() == 128 + signal.SIGKILL
    with os.fdopen(read) as step:
        assert step.read() == ""  # its other end is the step's: closed when the step has ended


def test_a_killed_launcher_takes_the_server_with_it() -> None:
    program = (
        "import os, sys; from launcher.process import Server; "
        "child = [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)']; "
        "Server(child, dict(os.environ), grace_seconds=30).wait()"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SERVER)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        assert launcher.stdout is not None
        child = int(launcher.stdout.readline())
        launcher.kill()
    assert _eventually(lambda: not _is_running(child))
