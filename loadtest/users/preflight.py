"""Before a run: where the server is, whether its models answer, and what the load must know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from halimede import Client, HalimedeError, InvalidArgument, TransportError
from halimede.target import Target, parse_target
from halimede.wire.repository import served as callable_models
from loadtest.artifacts import ROOT, engine_of
from loadtest.errors import BenchError
from loadtest.measure.result import Server
from loadtest.traffic.errors import TrafficError
from loadtest.traffic.mix import Protocol
from loadtest.traffic.profile import Profile
from loadtest.traffic.prompts import PromptWriter, tokens_per_word
from loadtest.users.plan import Words

# Words that the server is asked to count.
_PROBE_WORDS = (40, 140)
_PROBE_S = 60.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs; no `metrics`, no gauges."""

    grpc: str
    http: str
    metrics: str | None


def addresses_of(url: str, http_url: str | None, metrics_url: str | None) -> Addresses:
    """What is not told lies on the ports beside, as Triton has them. TrafficError for a URL that is none.

    `url` may be of gRPC or of HTTP; `metrics_url` may be "none".
    """
    try:
        told, web = parse_target(url), parse_target(http_url) if http_url else None
    except InvalidArgument as error:
        raise TrafficError(str(error)) from error
    if web is not None and web.is_grpc:
        raise TrafficError(f"--http-url {http_url}: must begin with http:// or https://")
    grpc = told if told.is_grpc else _beside(told, "grpc", 1)
    web = web or (_beside(told, "http", -1) if told.is_grpc else told)
    metrics = None if metrics_url == "none" else metrics_url or told.metrics_url
    return Addresses(str(grpc), str(web), metrics)


def _beside(target: Target, scheme: str, offset: int) -> Target:
    port = target.port if target.is_secure else target.port + offset
    return Target(scheme + ("s" if target.is_secure else ""), target.host, port)


def url_of(addresses: Addresses, protocol: Protocol) -> str:
    return addresses.grpc if protocol is Protocol.GRPC else addresses.http


def models_of(profile: Profile, default: str) -> tuple[str, ...]:
    return tuple(sorted({entry.model or default for entry in profile.mix}))


def check(profile: Profile, addresses: Addresses, model: str) -> Server:
    """The server, over each protocol that the mix takes. BenchError says what to start where none answers."""
    urls = dict.fromkeys(url_of(addresses, entry.protocol) for entry in profile.mix)
    models = models_of(profile, model)
    versions = [_health(url, models) for url in urls]
    return Server(", ".join(urls), versions[0], models)


def _health(url: str, models: Iterable[str]) -> str:
    try:
        with Client(url) as client:
            for model in models:
                health = client.health(model)
                if not health.ok:
                    raise BenchError(_not_ready(client, url, model))
    except TransportError as error:
        raise BenchError(
            f"{error}\n  make serve starts a server; --url and --http-url say where another one is"
        ) from error
    except HalimedeError as error:
        raise BenchError(f"{url}: {error}") from error
    return f"{health.server_name} {health.server_version}"


def _not_ready(client: Client, url: str, model: str) -> str:
    found = ", ".join(sorted(row.name for row in callable_models(client.models()) if row.ready))
    return f"{url}: model {model} is not ready; the server has {found or 'none'}: --model names another"


def fitted(profile: Profile, addresses: Addresses, model: str, say: Callable[[str], None]) -> Profile:
    """The profile with no longer a context than every model of the mix has, where they tell it."""
    contexts = [
        context
        for name in models_of(profile, model)
        if (context := _context(url_of(addresses, profile.mix[0].protocol), name)) is not None
    ]
    room = min(contexts, default=None)
    if room is None or (profile.max_context is not None and profile.max_context <= room):
        return profile
    if profile.max_context is not None:
        say(f"max_context {profile.max_context}: the server has {room}; longer requests are cut to that")
    return replace(profile, max_context=room)


def _context(url: str, model: str) -> int | None:
    try:
        with Client(url, model=model) as client:
            return client.card().max_context
    except HalimedeError:  # a model that is not of Halimede has no card
        return None


def words_of(
    profile: Profile, addresses: Addresses, model: str, tokenizer: Path | None
) -> Mapping[str, Words]:
    """How to write each model's prompts: with the tokenizer that lies here, or by the server's own counts."""
    return {
        name: _words(tokenizer or _built(name), url_of(addresses, profile.mix[0].protocol), name)
        for name in models_of(profile, model)
    }


def _built(model: str) -> Path | None:
    """The tokenizer of the model as it was built here."""
    path = engine_of(ROOT / "model_repository", model) / "tokenizer.json"
    return path if path.is_file() else None


def _words(tokenizer: Path | None, url: str, model: str) -> Words:
    if tokenizer is not None and not tokenizer.is_file():
        raise TrafficError(f"--tokenizer {tokenizer}: no such file")
    path = str(tokenizer.resolve()) if tokenizer else None
    return Words(path, _asked(url, model))


def _asked(url: str, model: str) -> float:
    writer = PromptWriter()
    try:
        with Client(url, model=model) as client:
            short, long = (
                (text, client.generate(text, max_tokens=1, timeout=_PROBE_S).num_input_tokens or 0)
                for text in map(writer.probe, _PROBE_WORDS)
            )
    except HalimedeError as error:
        raise BenchError(f"{url}: model {model} does not answer: {error}") from error
    return tokens_per_word(short, long)
