"""Whether a port is free, and who holds it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from launcher.refusal import Refusal

LISTEN = "0A"


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Raises Refusal for a port out of range, named twice, in use or out of reach on `host`."""
    taken: dict[int, str] = {}
    for name, port in ports.items():
        if not 1 <= port <= 65535:
            raise Refusal(f"--{name}-port {port}: must be between 1 and 65535")
        if port in taken:
            raise Refusal(f"--{name}-port {port}: --{taken[port]}-port has the same")
        taken[port] = name
        _check_free(host, name, port)


def is_free(host: str, port: int) -> bool:
    return _bind_error(host, port) is None


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def _check_free(host: str, name: str, port: int) -> None:
    error = _bind_error(host, port)
    if isinstance(error, socket.gaierror):
        raise Refusal(f"--host {host}: no such address ({error.strerror})")
    if error is not None and (holder := port_holder(port)) is not None:
        raise Refusal(f"--{name}-port {port}: in use by {holder}; name another port")
    if error is not None:
        raise Refusal(f"--{name}-port {port}: cannot listen on {host} ({error.strerror})")


def _bind_error(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As a server does: connections of the last one that are still closing do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error
    return None


def port_holder(port: int, proc: Path = Path("/proc")) -> str | None:
    """The program that listens on the port, as far as this user may see it; None for nobody."""
    sockets = set(_listening_sockets(port, proc))
    if not sockets:
        return None
    for process in proc.glob("[0-9]*"):
        # Other users' processes are closed to us, and any may end while we look.
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
