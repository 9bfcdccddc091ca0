"""What `loadtest.load` and `loadtest.sweep` take as arguments alike."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from loadtest import machine
from loadtest.artifacts import MODEL, ROOT
from loadtest.options import positive
from loadtest.traffic.errors import TrafficError
from loadtest.traffic.mix import MixEntry, Protocol
from loadtest.traffic.profile import Profile, load_profile
from loadtest.users.preflight import addresses_of, fitted
from loadtest.users.session import Crewing, Limits, Session, session
from loadtest.users.stopping import Stopping

PROFILES = ROOT / "loadtest" / "profiles"
DEFAULT_PROFILE = "chat"
DEFAULT_URL = "127.0.0.1:8001"
MASTER_PORT = 5557
WEB_PORT = 8089


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of a run; --worker, which takes part in anybody's, is apart."""
    _add_load(parser.add_argument_group("the load"))
    _add_server(parser.add_argument_group("the server"))
    _add_generator(parser.add_argument_group("the generator"))
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the results; default: runs/TIME-PROFILE")


def _add_load(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.toml")))
    add("--profile", default=DEFAULT_PROFILE, metavar="NAME|FILE", help=f"one of {known}, or a TOML file")
    add("--seed", type=int, metavar="N", help="another schedule of the same profile")
    add("--protocol", choices=[p.value for p in Protocol], help="for every request, instead of the profile's")


def _add_server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--url", default=DEFAULT_URL, help="gRPC, or http://...; default: %(default)s")
    add("--http-url", metavar="URL", help="default: the port below that of gRPC")
    add("--metrics-url", metavar="URL", help="default: the port above that of gRPC; none: no gauges")
    add("--model", default=MODEL, help="where the profile names none; default: %(default)s")
    add("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where the model was not built here")


def _add_generator(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--processes", type=positive, default=1, metavar="N", help="workers on this machine; default: 1")
    add("--master", action="store_true", help="wait for workers of other machines instead")
    add("--expect-workers", type=positive, metavar="N", help="with --master: so many")
    add("--master-bind-host", default="*", metavar="HOST", help="with --master; default: every interface")
    add("--master-port", type=_port, default=MASTER_PORT, metavar="PORT", help="default: %(default)s")
    add("--in-flight", type=positive, default=2000, metavar="N", help="open requests a worker may have")
    add(
        "--drain",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="wait for open requests; default: %(default)s",
    )
    add("--connections", type=positive, default=4, metavar="N", help="gRPC connections a worker; default: 4")
    add("--web", type=_port, nargs="?", const=WEB_PORT, metavar="PORT", help="Locust's page, on the loopback")


def session_of(
    options: argparse.Namespace, profile: Profile, stopping: Stopping
) -> AbstractContextManager[Session]:
    addresses = addresses_of(options.url, options.http_url, options.metrics_url)
    return session(
        profile,
        addresses,
        options.model,
        options.tokenizer,
        machine.describe(),
        Limits(options.in_flight, options.drain, options.connections),
        _crewing(options),
        stopping,
    )


def profile_of(options: argparse.Namespace) -> Profile:
    """The profile as the flags of both programs change it."""
    profile = load_profile(_file(options.profile))
    if options.protocol is None:
        return profile
    mix = tuple(_over(entry, Protocol(options.protocol)) for entry in profile.mix)
    return replace(profile, mix=mix)


def fitting(options: argparse.Namespace, profile: Profile) -> Profile:
    addresses = addresses_of(options.url, options.http_url, options.metrics_url)
    return fitted(profile, addresses, options.model, say)


def folder_of(options: argparse.Namespace, name: str, result: str) -> Path:
    """Where the results go; TrafficError where there are some."""
    time = datetime.now(UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    folder: Path = options.out or ROOT / "runs" / f"{time}-{name}"
    if (folder / result).exists():
        raise TrafficError(f"--out {folder}: has a {result} already; name another folder")
    if folder.exists() and not folder.is_dir():
        raise TrafficError(f"--out {folder}: is no folder")
    return folder


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def guarded(run: Callable[[], int]) -> Callable[[], int]:
    """2 where the command or the profile is at fault."""

    def guard() -> int:
        try:
            return run()
        except TrafficError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return guard


def _file(name: str) -> Path:
    """A profile's name, or the path of a file."""
    if name.endswith(".toml") or "/" in name:
        return Path(name).resolve()
    path = PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in PROFILES.glob("*.toml")))
        raise TrafficError(f"--profile {name}: must be one of {known}, or the path of a TOML file")
    return path


def _over(entry: MixEntry, protocol: Protocol) -> MixEntry:
    leaves = None if protocol is Protocol.UNARY else entry.disconnect_after_tokens
    return replace(entry, protocol=protocol, disconnect_after_tokens=leaves)


def _crewing(options: argparse.Namespace) -> Crewing:
    if options.master:
        if options.expect_workers is None:
            raise TrafficError("--master: needs --expect-workers, how many will come")
        return Crewing(options.expect_workers, options.master_bind_host, options.master_port, options.web)
    if options.expect_workers is not None:
        raise TrafficError("--expect-workers: needs --master; --processes are workers of this machine")
    return Crewing(options.processes, None, options.master_port, options.web)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, must be a number of seconds of at least 0")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text}, must be a port from 1 to 65535")
    return int(text)
