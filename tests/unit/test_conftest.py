"""What a test run takes, and what the programs that it starts inherit."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.paths import PYTHONPATH, ROOT

IGNORED = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_an_ignored_ctrl_c_interrupts_again() -> None:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    subprocess.run([sys.executable, "-c", IGNORED], cwd=ROOT, env=environment, check=True)
