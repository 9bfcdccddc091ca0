"""One replica: launch.py and its tritonserver on free ports of the loopback, and what a kubelet does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from loadtest.launched import Launched, NotReady

ROOT: Final = Path(__file__).parents[2]
START_LIMIT_S: Final = 40.0
STOP_LIMIT_S: Final = 60.0
# Three of them on two cores: little memory, a thread each, and so few slots that some requests wait.
SMALL: Final = {"slots": "2", "max_context": "512", "max_queue": "32", "threads": "1", "heartbeat_ms": "100"}
# The chart has 300 s; here every play sees connections come of age.
AGE_MS: Final = 5000
COUNTS: Final = re.compile(r"^halimede_(\w+)\{.*\} (\S+)$", re.MULTILINE)


class Broken(Exception):
    """A process did not do what it was started for; says what it wrote."""


class NotStarted(Broken):
    """A server that ended or hung before its model was ready: what a startup probe restarts."""


class Server(Launched):
    """Its addresses are known once `wait_ready` has returned."""

    def __init__(self, repository: Path, model: str, log: Path) -> None:
        arguments = ["--model-repository", str(repository), "--model", model]
        super().__init__(log, *arguments, "--", f"--grpc-max-connection-age={AGE_MS}")

    @property
    def grpc(self) -> str:
        return self.at("grpc")

    @property
    def http(self) -> str:
        return self.at("http")

    @property
    def metrics(self) -> str:
        return f"http://{self.at('metrics')}/metrics"

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset({self.grpc, self.http})

    def wait_ready(self, seconds: float = START_LIMIT_S) -> Self:
        """Raises NotStarted."""
        try:
            return super().wait_ready(seconds)
        except NotReady as problem:
            raise NotStarted(str(problem)) from problem

    def is_busy(self) -> bool:
        """Whether a request waits, and streams are past their first token, by the engine's own metrics."""
        try:
            with urllib.request.urlopen(self.metrics, timeout=5) as answer:
                page = answer.read().decode()
        except OSError:
            return False
        total: defaultdict[str, float] = defaultdict(float)
        for name, value in COUNTS.findall(page):
            total[name] += float(value)
        streams = total["time_to_first_token_seconds_count"] - total["request_success_total"]
        return total["num_requests_waiting"] > 0 and streams > 0

    def pre_stop(self, settle_s: float) -> subprocess.Popen[bytes]:
        """The hook, begun; it ends when nothing is in flight."""
        hook = [sys.executable, "-I", "-S", str(ROOT / "server" / "drain.py"), "--metrics", self.metrics]
        return subprocess.Popen([*hook, "--settle-s", str(settle_s)], stderr=subprocess.DEVNULL)

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self) -> int:
        """The exit code of the launcher."""
        return self.process.wait(STOP_LIMIT_S)


def variant(source: Path, target: Path, model: str, parameters: Mapping[str, str]) -> None:
    """The models of a repository as links, with other engine parameters. Raises Broken for an unknown one."""
    if not (source / f"{model}_engine" / "1" / "manifest.json").is_file():
        raise Broken(f"{model} is not built in {source}: make engines MODEL={model}")
    for folder in sorted(source.glob(f"{model}*")):
        shutil.copytree(folder, target / folder.name, copy_function=_link)
    config = target / f"{model}_engine" / "config.pbtxt"
    text = config.read_text()
    for name, value in parameters.items():
        text, found = re.subn(rf'(key: "{name}" value {{ string_value: )"[^"]*"', rf'\1"{value}"', text)
        if found != 1:
            raise Broken(f"{config}: has no parameter {name}")
    config.unlink()
    config.write_text(text)


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], limit_s: float, what: str, log: Path) -> None:
    """Raises NotStarted with the end of the log."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise NotStarted(f"{what} was not ready after {limit_s:g} s:\n{tail(log)}")
        time.sleep(0.05)


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "it wrote nothing"
