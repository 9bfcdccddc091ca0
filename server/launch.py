"""Start the real tritonserver on the models of a repository.

Everything that can be refused is refused before Triton starts, with the remedy. Prompts and answers are never
logged: only --log-level verbose, with a Triton that prints them, could do that.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import Refusal, machine, shared_memory
from launcher.control import Control, admin_header
from launcher.machine import Interpreter, this_interpreter
from launcher.ports import check_ports, held, ready_line
from launcher.process import Log, Server
from launcher.repository import models_to_serve, task_of
from launcher.tracing import Tracing
from launcher.triton import Triton, assemble_backends, find_triton

SERVER = Path(__file__).resolve().parent
# The command of the client for each task.
TRIED_BY = {
    "chat": "chat",
    "complete": 'generate "Once upon a time"',
    "summarize": "summarize @FILE",
    "translate": 'translate "Good morning!"',
}
LOG_LEVELS = ("error", "warning", "info", "verbose")
# Triton is drained before SIGTERM. Then it only has to check, once a second, whether it is done.
KILL_AFTER_SECONDS = 3.0
# Our steps put their shared files next to Triton's regions, so that they are removed together.
REGION_PREFIX = "HALIMEDE_REGION_PREFIX"
# Engines whose own setting `threads` is 0 read this variable.
THREADS = "HALIMEDE_THREADS"
MOST_THREADS = 1024
MOST_OFTEN_PINGED_MS = 500  # half of the shortest time between pings that gRPC allows a client
SIGNALLED = 128  # a shell adds the signal's number
EXAMPLES = """\
examples:
  launch.py                                     every model that is built, on 127.0.0.1
  launch.py --model smollm2 --model gpt2        these two
  launch.py --model smollm2 --http-port 9000
  launch.py --host 0.0.0.0                      reachable from other machines, without a login
  launch.py --trace-url http://localhost:4318/v1/traces --trace-sample-rate 100
  launch.py --http-port 0 --grpc-port 0 --metrics-port 0    on free ports
  launch.py -- --rate-limit=off                 passes all options after -- to tritonserver unchanged

the last line on stdout once the server is ready, for programs: the ports and the seconds that it took
  READY {"http": 8000, "grpc": 8001, "metrics": 8002, "seconds": 2.114}
"""


@dataclass(frozen=True, slots=True)
class Options:
    model_repository: Path
    models: tuple[str, ...]
    host: str
    ports: Mapping[str, int]  # "http", "grpc", "metrics"
    metrics_interval_ms: int
    exit_timeout: int
    threads: int
    log_level: str
    auto_complete: bool
    tracing: Tracing
    extra: tuple[str, ...]

    def url(self, service: str) -> str:
        """Where this machine reaches it: host:port."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.ports[service]}" if ":" in host else f"{host}:{self.ports[service]}"


def parse(arguments: Sequence[str]) -> Options:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    found = _parser().parse_args(arguments[:at])
    return Options(
        model_repository=found.model_repository.resolve(),
        models=tuple(found.model),
        host=found.host,
        ports={"http": found.http_port, "grpc": found.grpc_port, "metrics": found.metrics_port},
        metrics_interval_ms=found.metrics_interval_ms,
        exit_timeout=found.exit_timeout,
        threads=found.threads,
        log_level=found.log_level,
        auto_complete=found.auto_complete,
        tracing=Tracing(found.trace_url, found.trace_sample_rate),
        extra=tuple(arguments[at + 1 :]),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py",
        description="Start the real tritonserver on the models of a repository.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model-repository", type=Path, default=SERVER.parent / "model_repository", metavar="DIR")
    add("--model", action="append", default=[], metavar="NAME", help="repeatable; default: all built models")
    add("--host", default="127.0.0.1", help="address for HTTP, gRPC and metrics; default: %(default)s")
    add("--http-port", type=int, default=8000, metavar="PORT", help="default: %(default)s; 0: a free one")
    add("--grpc-port", type=int, default=8001, metavar="PORT", help="default: %(default)s; 0: a free one")
    add("--metrics-port", type=int, default=8002, metavar="PORT", help="default: %(default)s; 0: a free one")
    add("--metrics-interval-ms", type=int, default=2000, metavar="MS", help="default: %(default)s")
    add("--exit-timeout", type=int, default=30, metavar="S", help="for running requests; default: 30")
    add("--threads", type=_threads, default=0, metavar="N", help="of engines that set none; default: all")
    add("--log-level", choices=LOG_LEVELS, default="warning", help="Triton's own; default: %(default)s")
    add("--trace-url", metavar="URL", help="send OpenTelemetry spans there, over OTLP/HTTP; default: off")
    add("--trace-sample-rate", type=int, default=1, metavar="N", help="trace one request in N; default: 1")
    add("--auto-complete", action="store_true", help="complete config.pbtxt files; starts slower")
    return parser


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_THREADS:
        problem = f"{text!r}, must be a whole number in [0, {MOST_THREADS}]"
        raise argparse.ArgumentTypeError(problem)
    return int(text)


def command(
    options: Options, triton: Triton, backends: Path, models: Sequence[str], region_prefix: str
) -> list[str]:
    """The command line of tritonserver."""
    flags = {
        "model-repository": options.model_repository,
        "backend-directory": backends,
        "model-control-mode": "explicit",
        # Otherwise a model that is being replaced, or whose new version failed, would make the server
        # unready.
        "strict-readiness": "false",
        "exit-timeout-secs": options.exit_timeout,
        # Clients ping a silent server. Triton's own limit, one ping in five minutes, would end the connection
        # of a long answer that is not streamed.
        "grpc-http2-min-recv-ping-interval-without-data": MOST_OFTEN_PINGED_MS,
        # Otherwise each buffer that Triton keeps for reuse stays as large as its largest request so far.
        "grpc-infer-allocation-pool-size": 0,
        "metrics-interval-ms": options.metrics_interval_ms,
        "allow-cpu-metrics": "true",
        "allow-gpu-metrics": str(machine.has_gpu()).lower(),
    }
    if not machine.has_gpu():
        flags["pinned-memory-pool-byte-size"] = 0
    for service, port in options.ports.items():
        flags |= {f"{service}-address": _address(service, options.host), f"{service}-port": port}
    return [
        str(triton.server),
        *(f"--{name}={value}" for name, value in flags.items()),
        *(f"--load-model={name}" for name in models),
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        f"--backend-config=python,shm-default-byte-size={machine.REGION_BYTES}",
        *([] if options.auto_complete else ["--disable-auto-complete-config"]),
        *_log_flags(options.log_level),
        *options.tracing.flags,
        *_closed(options.extra),
        *options.extra,
    ]


def _closed(extra: Sequence[str]) -> list[str]:
    """Flags that close Triton's shared-memory API, unless the flags after -- configure it; we do not use it.

    When a request is too large, Triton 2.51 names a step's region in the error. Any client that knows the
    name could register the region, and read and write the requests of others.
    """
    if any("shared-memory" in flag for flag in extra):
        return []
    closed = f"shared-memory:nobody={secrets.token_hex(16)}"
    return [f"--grpc-restricted-protocol={closed}", f"--http-restricted-api={closed}"]


def _address(service: str, host: str) -> str:
    """IPv6 as each server wants it: gRPC's as in a URL, libevent's with a prefix."""
    if ":" not in host:
        return host
    return f"[{host}]" if service == "grpc" else f"ipv6:{host}"


def _log_flags(level: str) -> list[str]:
    rank = LOG_LEVELS.index(level)
    names = ("error", "warning", "info")
    flags = [f"--log-{name}={str(at <= rank).lower()}" for at, name in enumerate(names)]
    return [*flags, f"--log-verbose={int(level == 'verbose')}"]


def environment(base: Mapping[str, str], python: Interpreter, triton: Triton) -> dict[str, str]:
    """The environment that Triton and its Python steps need.

    The stub embeds an isolated Python: it ignores PYTHONPATH and PYTHONHOME, and finds its home and
    site-packages through the first `python3` on PATH. Triton starts the stub through bash.
    """
    path = os.pathsep.join([str(python.programs), base.get("PATH") or os.defpath])
    inherited = [base["LD_LIBRARY_PATH"]] if base.get("LD_LIBRARY_PATH") else []
    libraries = os.pathsep.join([*map(str, triton.libraries), *inherited])
    # Otherwise Triton's hundred threads would each keep the memory of their largest requests, in glibc's
    # arenas.
    found = {"MALLOC_ARENA_MAX": "2", **base, "PATH": path}
    return found | ({"LD_LIBRARY_PATH": libraries} if libraries else {})


def banner(options: Options, models: Sequence[str], seconds: float) -> str:
    """The addresses, and for each model the command that tries it."""
    web, grpc, metrics = (options.url(service) for service in ("http", "grpc", "metrics"))
    width = max(map(len, models))
    lines = [f"ready in {seconds:.1f} s on http://{web}, grpc {grpc}, metrics http://{metrics}/metrics"]
    for model in models:
        command = TRIED_BY.get(task_of(options.model_repository, model) or "")
        tried = (
            f"halimede {command} --url {grpc} --model {model}"
            if command
            else "served, with inputs of its own"
        )
        lines.append(f"  {model:{width}}  {tried}")
    return "\n".join([*lines, "Ctrl-C stops it; halimede load, unload and reload change what it serves"])


def serve(options: Options) -> int:
    """Runs tritonserver until it ends; returns its exit code, 0 if it was stopped in order."""
    began = time.monotonic()
    options.tracing.check()
    models = models_to_serve(options.model_repository, options.models)
    machine.check_shared_memory(shared_memory.FOLDER, len(models))
    python = this_interpreter()
    triton = find_triton(os.environ, python, machine.this_platform())
    check_ports(options.host, options.ports)
    if removed := shared_memory.remove_leftovers():
        print(f"removed {removed} shared-memory regions that a dead server left", file=sys.stderr)
    with shared_memory.claim() as claim, ExitStack() as until_ready:
        ports = until_ready.enter_context(held(options.host, options.ports))
        options = replace(options, ports=ports)
        control = Control(options.url("http"), options.url("metrics"), admin_header(os.environ))
        server = _started(options, triton, python, models, claim, control)
        if server.wait_ready(control.is_ready):
            until_ready.close()
            seconds = time.monotonic() - began
            print(f"{banner(options, models, seconds)}\n{ready_line(ports, seconds)}", flush=True)
            return ended(server)
        return never_ready(server)


def _started(
    options: Options,
    triton: Triton,
    python: Interpreter,
    models: Sequence[str],
    claim: shared_memory.Claim,
    control: Control,
) -> Server:
    """Starts the server, which is not ready yet. Signals to this process stop it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "halimede")
    venv = [Path(sys.prefix, "share", "halimede")] if sys.prefix != sys.base_prefix else []
    backends = assemble_backends(triton, SERVER, (*venv, cache))
    threads = {THREADS: f"{options.threads}"} if options.threads else {}
    variables = {**environment(os.environ, python, triton), **options.tracing.environment, **threads}
    server = Server(
        command(options, triton, backends, models, claim.prefix),
        variables | {REGION_PREFIX: claim.prefix},
        grace_seconds=KILL_AFTER_SECONDS,
        drain=lambda: control.drain(options.exit_timeout),
        inherited=[claim.lock],
        log=None if machine.has_gpu() else Log(sys.stderr.buffer),
    )
    server.stop_on_signals()
    return server


def ended(server: Server) -> int:
    """Its exit code; 1 if it ended with 0 but was not told to stop, so that a supervisor starts it again."""
    code = server.wait()
    if code or server.stopping:
        return code
    print("tritonserver ended by itself; see above", file=sys.stderr)
    return 1


def never_ready(server: Server) -> int:
    """Its exit code; 1 for a crash, since Triton may crash at its end after a model failed to load."""
    code = server.wait()
    if server.stopping or code <= SIGNALLED:
        return code
    print(f"tritonserver died of signal {code - SIGNALLED} before it was ready; see above", file=sys.stderr)
    return 1


def main() -> None:
    try:
        sys.exit(serve(parse(sys.argv[1:])))
    except Refusal as refusal:
        print(f"launch.py: {refusal}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
