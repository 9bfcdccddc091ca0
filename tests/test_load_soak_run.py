"""The soak test's watch, its child and its command line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest.soak.__main__ import main
from loadtest.soak.offered import Addresses, Load, put
from loadtest.soak.watch import Watch
from loadtest.users.stopping import Stopping

SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
# Ends upon a Ctrl-C as the load test does; says first that it is ready to.
WRITER = """
import pathlib, signal, sys, time
def stop(*_): sys.exit(130)
signal.signal(signal.SIGINT, stop)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


@contextmanager
def asleep() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has come up: between fork and exec it has no memory of its own."""
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process


def test_a_watch_sees_the_memory_of_a_process() -> None:
    with asleep() as process:
        with Watch(process.pid, 0.02) as watch:
            while len(watch.looks) < 3:
                time.sleep(0.01)
        process.kill()
    assert all(look.rss >= look.pss > 0 and look.processes == 1 for look in watch.looks)
    assert [look.at_s for look in watch.looks] == sorted({look.at_s for look in watch.looks})
    assert not watch.ended


def test_a_watch_says_that_the_process_ended_and_keeps_what_it_saw() -> None:
    with asleep() as process, Watch(process.pid, 0.02) as watch:
        while not watch.looks:
            time.sleep(0.01)
        process.kill()
        process.wait()
        while not watch.ended:
            time.sleep(0.01)
    assert watch.looks
    assert watch.looks[-1].processes == 1


def test_the_load_ends_with_its_own_code() -> None:
    assert put([sys.executable, "-c", "raise SystemExit(3)"], Stopping(), lambda: True) == 3


def test_a_wish_to_stop_goes_on_to_the_load(tmp_path: Path) -> None:
    ready, wishes = tmp_path / "ready", Stopping()

    def goes_on() -> bool:
        if ready.exists() and not wishes.wishes:
            wishes.wish()
        return True

    assert put([sys.executable, "-c", WRITER, str(ready)], wishes, goes_on) == 130


def test_the_load_ends_with_the_server(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", WRITER, str(ready)]
    assert put(command, Stopping(), lambda: not ready.exists()) == 130


def test_the_load_is_told_what_is_known() -> None:
    load = Load("chat", 1.5, 1800.0, "smollm2")
    words = load.command(Addresses("grpc://h:1", metrics="http://h:3/metrics"), Path("out"))
    told = dict(zip(words[3::2], words[4::2], strict=True))
    assert told == {
        "--profile": "chat",
        "--rate": "1.5",
        "--duration": "1800",
        "--model": "smollm2",
        "--url": "grpc://h:1",
        "--metrics-url": "http://h:3/metrics",
        "--out": "out",
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rate", "1", "--pid", "1"], "--pid 1: needs --url"),
        (["--rate", "1", "--url", "127.0.0.1:1"], "needs --pid"),
        (["--rate", "1", "--url", "127.0.0.1:1", "--pid", "999999999"], "no such process"),
        (["--sweep", "absent.json"], "--sweep absent.json"),
    ],
)
def test_a_command_at_fault_is_told(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_results_are_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").touch()
    assert main(["--rate", "1", "--out", str(tmp_path)]) == 2
    assert "has a result.json already" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "many"])
def test_a_rate_must_be_above_zero(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--rate", rate])
    assert ended.value.code == 2
    assert "must be a number above 0" in capsys.readouterr().err
