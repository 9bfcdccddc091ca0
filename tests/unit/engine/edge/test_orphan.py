"""A step ends with the server that started it, whatever its threads are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.paths import ROOT

SERVER = ROOT / "server"
STEP = "from engine.edge.triton import exit_with_parent; exit_with_parent(); print('up', flush=True); input()"
# The server starts the step, passes its pipes on and sleeps.
PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {STEP!r}])
time.sleep(60)
"""


def test_a_step_does_not_outlive_a_killed_server() -> None:
    """Seen: a step that was sending a metric when its server was killed kept 280 MB for ever."""
    environment = {**os.environ, "PYTHONPATH": str(SERVER)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        server.send_signal(signal.SIGKILL)
        # The step holds the other end of this pipe: it ends when the step does.
        assert server.stdout.read() == b""
