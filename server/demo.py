"""The main job, shown: start the server, stream an answer over gRPC and over HTTP, stop it.

Run by `make demo`. The server lives no longer than this program, however that ends.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.ports import is_free, ports_told
from launcher.process import Server

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / ".cache" / "demo.log"
HOST = "127.0.0.1"
# With the system message of its own template this small model is undecided between English and French; with
# this one it answers in English, in every precision.
SYSTEM = "You answer in one sentence."
QUESTION = "What is the capital of France?"
READY_SECONDS = 120
EXIT_SECONDS = 5
# More than the launcher needs to stop.
STOP_SECONDS = EXIT_SECONDS + 10
LOG_LINES = 25


class DemoFailed(Exception):
    """Says which step failed; the log says why."""


def _start(model: str, wanted: Mapping[str, int]) -> Server:
    """Starts the server on the wanted ports; a port that is in use is replaced by any free one."""
    command = [sys.executable, str(ROOT / "server" / "launch.py"), "--model", model]
    command += ["--exit-timeout", str(EXIT_SECONDS)]
    for name, port in wanted.items():
        command += [f"--{name}-port", str(port if is_free(HOST, port) else 0)]
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        return Server(command, os.environ, grace_seconds=STOP_SECONDS, output=log.fileno())


def _wait_ready(server: Server, wanted: Mapping[str, int]) -> dict[str, int]:
    """Waits for the server and returns its ports."""
    began = time.monotonic()
    ports: dict[str, int] = {}

    def ready() -> bool:
        seconds = time.monotonic() - began
        if seconds > READY_SECONDS:
            raise DemoFailed(f"the server is not ready after {READY_SECONDS} s")
        if sys.stdout.isatty():
            print(f"\rstarting the server: {seconds:.0f} s", end="", flush=True)
        ports.update(ports_told(LOG.read_text(errors="replace")) or {})
        return bool(ports)

    if not sys.stdout.isatty():
        print("starting the server", flush=True)
    if not server.wait_ready(ready):
        raise DemoFailed("the server ended before it was ready")
    print(f"\rthe server is ready after {time.monotonic() - began:.1f} s", flush=True)
    for name, port in ports.items():
        if port != wanted[name]:
            print(f"port {wanted[name]} is in use: {name} uses {port} instead", flush=True)
    return ports


def _show(title: str, command: Sequence[str]) -> None:
    """Prints the command and runs it; its output goes to the terminal. Raises DemoFailed when it fails."""
    print(f"\n{title}\n$ {shlex.join([Path(command[0]).name, *command[1:]])}", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise DemoFailed(f"{Path(command[0]).name} ended with code {code}")


def _ask_over_grpc(model: str, ports: Mapping[str, int]) -> None:
    halimede = str(Path(sys.executable).parent / "halimede")
    options = ["--url", f"{HOST}:{ports['grpc']}", "--model", model, "--system", SYSTEM, "--stream"]
    _show("the client, over gRPC:", [halimede, "generate", *options, "--temperature", "0", QUESTION])


def _ask_over_http(model: str, ports: Mapping[str, int]) -> None:
    curl = shutil.which("curl")
    if curl is None:
        print("curl is not installed: the request over HTTP is skipped")
        return
    url = f"http://{HOST}:{ports['http']}/v2/models/{model}/generate_stream"
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    messages = json.dumps(turns)
    body = json.dumps({"messages": messages, "stream": True, "temperature": 0})
    _show("the same over HTTP:", [curl, "--silent", "--show-error", "--fail", "-N", url, "-d", body])


def demonstrate(model: str, wanted: Mapping[str, int]) -> None:
    server = _start(model, wanted)
    try:
        ports = _wait_ready(server, wanted)
        _ask_over_grpc(model, ports)
        _ask_over_http(model, ports)
    finally:
        server.stop()
        server.wait()
    print(
        "\nthe server is stopped. Next:\n"
        "  make serve    keep it running\n"
        "  make chat     talk to it, from another terminal\n"
        f"  http://{HOST}:{wanted['metrics']}/metrics has its metrics, while it runs\n"
        "  make test     run the tests"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Start the server, stream an answer, stop it.")
    parser.add_argument("--model", default="smollm2", metavar="NAME")
    for service, port in {"http": 8000, "grpc": 8001, "metrics": 8002}.items():
        parser.add_argument(f"--{service}-port", type=int, default=port, metavar="PORT")
    found = parser.parse_args()
    wanted = {"http": found.http_port, "grpc": found.grpc_port, "metrics": found.metrics_port}
    # SIGTERM stops the server as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        demonstrate(found.model, wanted)
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    except DemoFailed as failure:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-LOG_LINES:])
        sys.exit(f"\n{failure}; the end of {LOG.relative_to(ROOT)}:\n{tail}")


if __name__ == "__main__":
    main()
