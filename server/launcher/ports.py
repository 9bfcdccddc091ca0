"""Ports: whether they are free, which program listens on them, how to reserve them until Triton listens, and
the line that reports them to programs.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from launcher import Refusal

LISTEN = "0A"
READY = re.compile(r"^READY (\{.*\})$", re.MULTILINE)
SECONDS = "seconds"


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Raises Refusal for a port that is out of range, named twice, in use, or not allowed on `host`.

    Port 0 stands for any free port.
    """
    taken: dict[int, str] = {}
    for name, port in ports.items():
        if not 0 <= port <= 65535:
            raise Refusal(f"--{name}-port {port}: must be between 1 and 65535, or 0 for a free port")
        if port and port in taken:
            raise Refusal(f"--{name}-port {port}: --{taken[port]}-port has the same")
        taken[port] = name
        if error := _bind_error(host, port):
            raise _refusal(host, name, port, error)


@contextmanager
def held(host: str, ports: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """The same ports, with a free one in place of each 0; they are reserved until the context ends.

    A socket of ours is bound to each port and does not listen. Linux lets Triton's socket bind the same port
    and listen, since both have SO_REUSEADDR, but never gives a bound port to a program that asks for a free
    one.
    """
    with ExitStack() as sockets:
        found: dict[str, int] = {}
        # Named ports come first; otherwise a free port could be one of them.
        for name, port in sorted(ports.items(), key=lambda named: named[1] == 0):
            try:
                bound = sockets.enter_context(_bound(host, port))
            except OSError as error:
                raise _refusal(host, name, port, error) from error
            found[name] = bound.getsockname()[1]
        yield {name: found[name] for name in ports}


def is_free(host: str, port: int) -> bool:
    return _bind_error(host, port) is None


def _refusal(host: str, name: str, port: int, error: OSError) -> Refusal:
    if isinstance(error, socket.gaierror):
        return Refusal(f"--host {host}: no such address ({error.strerror})")
    if (holder := port_holder(port)) is not None:
        return Refusal(f"--{name}-port {port}: in use by {holder}; name another port")
    return Refusal(f"--{name}-port {port}: cannot listen on {host} ({error.strerror})")


def _bind_error(host: str, port: int) -> OSError | None:
    try:
        with _bound(host, port) as probe:
            probe.listen()
    except OSError as error:
        return error
    return None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, protocol)
    try:
        # As a server does: connections of its predecessor that are still closing do not matter.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def port_holder(port: int, proc: Path = Path("/proc")) -> str | None:
    """The program that listens on the port, if this user may see it; None if none listens."""
    sockets = set(_listening_sockets(port, proc))
    if not sockets:
        return None
    for process in proc.glob("[0-9]*"):
        # Other users' processes are not readable, and any may end during this loop.
        with suppress(OSError):
            if any(entry.readlink().name in sockets for entry in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return "another program"


def _listening_sockets(port: int, proc: Path) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        with suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"


def ready_line(ports: Mapping[str, int], seconds: float) -> str:
    return f"READY {json.dumps({**ports, SECONDS: round(seconds, 3)})}"


def ports_told(log: str) -> dict[str, int] | None:
    """The ports in the ready line; None while the log does not have it."""
    found = READY.search(log)
    if found is None:
        return None
    told: dict[str, int] = json.loads(found[1])
    del told[SECONDS]
    return told
