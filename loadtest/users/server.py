"""The server of a run: its addresses, whether its models answer, how their prompts are written, its metrics,
and whether it is idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from halimede import Client, HalimedeError, InvalidArgument, TransportError
from halimede.errors import ProtocolError
from halimede.target import Target, parse_target
from halimede.wire.prometheus import parse_metrics
from halimede.wire.repository import served as callable_models
from loadtest.artifacts import ROOT, engine_of
from loadtest.errors import BenchError, TrafficError
from loadtest.measure.gauges import Scrape
from loadtest.measure.result import ServerFacts
from loadtest.traffic.profile import Profile, Protocol
from loadtest.traffic.prompts import PromptWriter, tokens_per_word
from loadtest.users.live import Stopping, repeatedly
from loadtest.users.worker import Words

# Words that the server is asked to count.
_PROBE_WORDS, _PROBE_S = (40, 140), 60.0
_SCRAPE_S, _SCRAPE_TIMEOUT_S = 1.0, 2.0
# Without metrics there is nothing to see.
_BLIND_S = 5.0
_BUSY_S = 180.0
# The engine updates its metrics twice a second: one look may be of the moment before.
_LOOK_S, _LOOKS, _LOOK_TIMEOUT_S = 0.7, 2, 5.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs; no `metrics`, no gauges."""

    grpc: str
    http: str
    metrics: str | None

    def of(self, protocol: Protocol) -> str:
        return self.grpc if protocol is Protocol.GRPC else self.http


def addresses_of(url: str, http_url: str | None, metrics_url: str | None) -> Addresses:
    """What is not given is on the neighbouring ports, as Triton has them. TrafficError for a URL that is
    none.

    `url` may be of gRPC or of HTTP; `metrics_url` may be "none".
    """
    try:
        given, web = parse_target(url), parse_target(http_url) if http_url else None
    except InvalidArgument as error:
        raise TrafficError(str(error)) from error
    if web is not None and web.is_grpc:
        raise TrafficError(f"--http-url {http_url}: must begin with http:// or https://")
    grpc = given if given.is_grpc else _neighbour(given, "grpc", 1)
    web = web or (_neighbour(given, "http", -1) if given.is_grpc else given)
    metrics = None if metrics_url == "none" else metrics_url or given.metrics_url
    return Addresses(str(grpc), str(web), metrics)


def _neighbour(target: Target, scheme: str, offset: int) -> Target:
    port = target.port if target.is_secure else target.port + offset
    return Target(scheme + ("s" if target.is_secure else ""), target.host, port)


def models_of(profile: Profile, default: str) -> tuple[str, ...]:
    return tuple(sorted({entry.model or default for entry in profile.mix}))


def check(profile: Profile, addresses: Addresses, model: str) -> ServerFacts:
    """The server, over each protocol that the mix takes. BenchError says what to start where none answers."""
    urls = dict.fromkeys(addresses.of(entry.protocol) for entry in profile.mix)
    models, versions = models_of(profile, model), []
    for url in urls:
        try:
            with Client(url) as client:
                for name in models:
                    health = client.health(name)
                    if not health.ok:
                        ready = [row.name for row in callable_models(client.models()) if row.ready]
                        raise BenchError(
                            f"{url}: model {name} is not ready; the server has"
                            f" {', '.join(sorted(ready)) or 'none'}: --model names another"
                        )
        except TransportError as error:
            raise BenchError(
                f"{error}\n  make serve starts a server; --url and --http-url say where another one is"
            ) from error
        except HalimedeError as error:
            raise BenchError(f"{url}: {error}") from error
        versions.append(f"{health.server_name} {health.server_version}")
    return ServerFacts(", ".join(urls), versions[0], models)


def fitted(profile: Profile, addresses: Addresses, model: str, say: Callable[[str], None]) -> Profile:
    """The profile, its context at most that of every model of the mix that has a card."""
    contexts = []
    for name in models_of(profile, model):
        try:
            with Client(addresses.of(profile.mix[0].protocol), model=name) as client:
                contexts.append(client.card().max_context)
        except HalimedeError:  # a model that is not of Halimede has no card
            continue
    room = min(contexts, default=None)
    if room is None or (profile.max_context is not None and profile.max_context <= room):
        return profile
    if profile.max_context is not None:
        say(f"max_context {profile.max_context}: the server has {room}; longer requests are cut to that")
    return replace(profile, max_context=room)


def words_of(
    profile: Profile, addresses: Addresses, model: str, tokenizer: Path | None
) -> Mapping[str, Words]:
    """How to write each model's prompts: with `tokenizer`, or the one of the model as it was built here, or
    by the server's own counts. BenchError where a model does not answer."""
    if tokenizer is not None and not tokenizer.is_file():
        raise TrafficError(f"--tokenizer {tokenizer}: no such file")
    found, url, writer = {}, addresses.of(profile.mix[0].protocol), PromptWriter()
    for name in models_of(profile, model):
        path = tokenizer or engine_of(ROOT / "model_repository", name) / "tokenizer.json"
        try:
            with Client(url, model=name) as client:
                short, long = (
                    (text, client.generate(text, max_tokens=1, timeout=_PROBE_S).num_input_tokens or 0)
                    for text in map(writer.probe, _PROBE_WORDS)
                )
        except HalimedeError as error:
            raise BenchError(f"{url}: model {name} does not answer: {error}") from error
        found[name] = Words(str(path.resolve()) if path.is_file() else None, tokens_per_word(short, long))
    return found


class Scrapes:
    """What the metrics said, and when; `failures` are the readings that brought nothing."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self._url = url
        self._http = http
        self._texts: list[tuple[float, str]] = []
        self.failures = 0
        self.reason = ""

    def since(self, start_epoch_s: float) -> list[Scrape]:
        """By the clock of the run that began then; what came earlier is left out."""
        return [(at - start_epoch_s, text) for at, text in self._texts if at >= start_epoch_s]

    def read(self) -> bool:
        try:
            text = self._http.get(self._url).raise_for_status().text
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.failures += 1
            self.reason = str(error).partition("\n")[0] or type(error).__name__
        else:
            self._texts.append((time.time(), text))
        return True


@contextmanager
def scraping(url: str | None) -> Iterator[Scrapes | None]:
    """Reads the metrics every second while its `with` block runs; without a URL it reads nothing."""
    if url is None:
        yield None
        return
    with httpx.Client(timeout=_SCRAPE_TIMEOUT_S) as http:
        scrapes = Scrapes(url, http)
        with repeatedly(scrapes.read, _SCRAPE_S):
            yield scrapes


def cool_down(url: str | None, stopping: Stopping) -> None:
    """Waits until the server with these metrics has no running and no waiting requests; returns early on a
    signal to stop. BenchError where the server stays busy, or is gone."""
    if url is None:
        time.sleep(_BLIND_S)
        return
    deadline, looks = time.monotonic() + _BUSY_S, 0
    while looks < _LOOKS and not stopping.count:
        try:
            metrics = parse_metrics(httpx.get(url, timeout=_LOOK_TIMEOUT_S).raise_for_status().text)
        except (httpx.HTTPError, httpx.InvalidURL, ProtocolError) as error:
            raise BenchError(f"{url}: the metrics cannot be read, give --metrics-url: {error}") from error
        gauges = ("halimede_num_requests_running", "halimede_num_requests_waiting")
        looks = 0 if any(metrics.total(name) for name in gauges) else looks + 1
        if time.monotonic() > deadline:
            raise BenchError(f"{url}: the server is still busy after {_BUSY_S:.0f} s: who else uses it?")
        time.sleep(_LOOK_S)
