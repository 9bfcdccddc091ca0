"""What a test run takes, and what the programs that it starts inherit."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.paths import ROOT

IGNORED = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_an_ignored_ctrl_c_is_heard_again() -> None:
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "client", "server"))
    environment = os.environ | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", IGNORED], cwd=ROOT, env=environment, check=True)
