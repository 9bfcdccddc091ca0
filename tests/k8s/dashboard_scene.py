"""The stage of the live dashboard: two servers of two models each, under load, and one that is not there."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from halimede import Client, InvalidArgument, RetryPolicy
from tests.k8s.stack import Stack, running
from tests.k8s.webhook import receiving
from tests.live.serving import Server, eventually, started
from tests.live.small_models import SmallModel, give_slots

MODELS = ("alpha", "beta")
# Named as the Pods of a Deployment are.
PODS = ("halimede-7f9-a", "halimede-7f9-b")
GONE_POD = "halimede-7f9-gone"
GONE = "127.0.0.1:9"  # nothing listens on the port for `discard`
SHARED = "The night was long and the sea was quiet, and nobody spoke a word."
ONCE = RetryPolicy(attempts=1)
EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Scene:
    """`loads` ends the load of a Pod's model when it is set."""

    stack: Stack
    servers: Mapping[str, Server]
    loads: dict[tuple[str, str], threading.Event]

    def unload(self, pod: str, model: str) -> None:
        self.loads[pod, model].set()
        with Client(f"http://{self.servers[pod].address.http}", model=model) as client:
            client.unload()


@contextmanager
def staged(tools: Path, folder: Path) -> Iterator[Scene]:
    """Prometheus with the chart's rules on its fast clock, under load as long as the block runs."""
    repository = _repository(folder)
    (folder / "stack").mkdir()
    with ExitStack() as stack:
        servers = {pod: stack.enter_context(started(repository, folder / f"{pod}.log")) for pod in PODS}
        webhook = stack.enter_context(receiving())
        watch = stack.enter_context(running(tools, folder / "stack", webhook.url))
        watch.watch(
            {pod: server.wait_ready().at("metrics") for pod, server in servers.items()} | {GONE_POD: GONE}
        )
        scene = Scene(watch, servers, {})
        for pod, model in itertools.product(PODS, MODELS):
            scene.loads[pod, model] = stack.enter_context(_load(servers[pod], model))
        assert eventually(lambda: bool(watch.query('ALERTS{alertstate="firing"}')))
        yield scene


def _repository(folder: Path) -> Path:
    for seed, model in enumerate(MODELS):
        SmallModel(folder / f"{model}-checkpoint", "llama", seed).write().publish(folder / "models", model)
        give_slots(folder / "models", model)
    return folder / "models"


@contextmanager
def _load(server: Server, model: str) -> Iterator[threading.Event]:
    over = threading.Event()
    thread = threading.Thread(target=_ask, args=(server, model, over), daemon=True)
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join(60)


def _ask(server: Server, model: str, over: threading.Event) -> None:
    """Whole answers, streams, and now and then a request that is refused."""
    with Client(f"http://{server.address.http}", model=model, retry=ONCE) as client:
        for number in itertools.count():
            if over.wait(EVERY_S):
                return
            if number % 5:
                _answered(client, number)
            else:
                with suppress(InvalidArgument):
                    client.generate(SHARED, max_tokens=100_000)


def _answered(client: Client, number: int) -> None:
    if number % 2:
        client.generate(SHARED, max_tokens=12, ignore_eos=True)
    else:
        for _ in client.stream(f"{SHARED} {number}", max_tokens=12, ignore_eos=True):
            pass
