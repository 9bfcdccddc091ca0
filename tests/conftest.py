from __future__ import annotations

import platform
import signal
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

import loadtest  # noqa: F401  before grpc: it says how a process that speaks it starts others
from build.dialects.tensorrt.toolkit import Missing, RtxToolkit, rtx
from tests.paths import ROOT

# Minutes of training before it serves what nobody else asks for.
TRAINS = "tests/live/test_dates_live.py"
# No test is timed, on machines that are shared least of all.
settings.register_profile("halimede", deadline=None)
settings.load_profile("halimede")

# A job in the background may inherit an ignored Ctrl-C, and so would the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class ServersTogether(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Files of tests go to the process that is free; those of a folder that start servers go to one, in turn.

    So the files of a folder share servers. xdist's own groups do not work with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return str(Path(file).parent) if _starts_servers(file) else file


@cache
def _starts_servers(file: str) -> bool:
    if file == TRAINS:
        return False
    text = (ROOT / file).read_text("utf-8")
    return "mark.e2e" in text or "tests.live" in text


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ServersTogether:
    return ServersTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not Path("/dev/nvidiactl").exists():
        _skip_gpu(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which interpreters ran: that of the tests, and what a test found Triton's models to run in."""
    reports = terminalreporter.getreports("passed")
    found = {
        f"{value}" for report in reports for name, value in report.user_properties if name == "interpreter"
    }
    everything = [f"tests, build, launcher and client: {platform.python_version()}", *sorted(found)]
    terminalreporter.write_line(f"interpreters: {'; '.join(everything)}")


def _skip_gpu(items: list[pytest.Item]) -> None:
    """Tests of a GPU are skipped, and say so, where there is none."""
    skipped = pytest.mark.skip(reason="needs an NVIDIA GPU: make gpu-check, on a host that has one")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skipped)


@pytest.fixture(scope="session")
def toolkit() -> RtxToolkit:
    """TensorRT-RTX, which parses and builds without a GPU; `make test` installs it."""
    try:
        return rtx()
    except Missing as reason:
        pytest.skip(str(reason))
