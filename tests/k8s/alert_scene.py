"""The stage of the live alerts: servers under a light load, watched by Prometheus with the chart's rules."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.k8s import span_receiver
from tests.k8s.faults import crowd
from tests.k8s.stack import Stack, running
from tests.k8s.webhook import Notice, Webhook, receiving
from tests.live.artifacts import built, variant
from tests.live.serving import Server, eventually, started
from tests.live.small_models import SmallModel, give_slots

MAIN = "smollm2"
OTHER = "beta"
SLOTS, QUEUE = 8, 24
# On ONNX Runtime it is so slow that a few users are too many for it. Those who stream get text with the
# heartbeats alone, too seldom for the objective.
ENGINE = {
    "slots": f"{SLOTS}", "max_context": "512", "max_queue": f"{QUEUE}", "kernels": "off",
    "stream_interval": "512", "heartbeat_ms": "600",
}  # fmt: skip
LIMIT_S = 240.0
# Longer than what the prefix cache reuses at least; a token of the small model is a letter.
SHARED = "The night was long and the sea was quiet, and nobody spoke a word."


@dataclass(slots=True)
class Prompts:
    """Prompts are all alike. From `vary` on, no two begin alike."""

    _varied: threading.Event = field(default_factory=threading.Event)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(10_000))

    def __call__(self) -> str:
        return f"{next(self._numbers)} {SHARED}" if self._varied.is_set() else SHARED

    def vary(self) -> None:
        self._varied.set()


@dataclass(frozen=True, slots=True)
class Scene:
    """`main` serves smollm2, `other` a small model whose spans go to `collector`."""

    stack: Stack
    webhook: Webhook
    main: Server
    other: Server
    prompts: Prompts
    collector: ExitStack
    folder: Path

    @property
    def addresses(self) -> dict[str, str]:
        return {"main": self.main.at("metrics"), "other": self.other.at("metrics")}

    def told(self, name: str, **labels: str) -> Notice:
        """The notice that the alert fires, once it is here and no other came after it."""
        self._eventually(lambda: self.fires(name, **labels), f"{name} {labels} to fire")
        notice = self._latest(name, labels)
        assert notice
        assert notice.annotations["runbook_url"].endswith(f"{name}.md")
        return notice

    def over(self, name: str, **labels: str) -> None:
        self._eventually(lambda: not self.fires(name, **labels), f"{name} {labels} to be over")

    def finds(self, expression: str) -> float:
        """The value of the first series, once there is one."""
        found: list[dict[str, Any]] = []

        def ask() -> bool:
            found[:] = self.stack.query(expression)
            return bool(found)

        self._eventually(ask, expression)
        return float(found[0]["value"][1])

    def fires(self, name: str, **labels: str) -> bool:
        notice = self._latest(name, labels)
        return notice is not None and notice.firing

    def _latest(self, name: str, labels: dict[str, str]) -> Notice | None:
        of_name = (notice for notice in reversed(self.webhook.notices) if notice.name == name)
        return next((notice for notice in of_name if labels.items() <= notice.labels.items()), None)

    def _eventually(self, condition: Callable[[], bool], what: str) -> None:
        if not eventually(condition, LIMIT_S):
            alerts = [found["metric"] for found in self.stack.query("ALERTS")]
            raise AssertionError(f"waited {LIMIT_S:g} s for {what}; alerts: {alerts}")


@contextmanager
def staged(tools: Path, folder: Path) -> Iterator[Scene]:
    (folder / "stack").mkdir()
    with ExitStack() as stack:
        enter = stack.enter_context
        collector = enter(ExitStack())
        spans = collector.enter_context(span_receiver.receiving())
        main = enter(started(variant(built("int8"), folder / MAIN, ENGINE), folder / "main.log"))
        other = enter(started(small(folder), folder / "other.log", "--trace-url", spans.url))
        webhook = enter(receiving())
        watch = enter(running(tools, folder / "stack", webhook.url))
        scene = Scene(watch, webhook, main.wait_ready(), other.wait_ready(), Prompts(), collector, folder)
        watch.watch(scene.addresses)
        enter(crowd(main, MAIN, 1, lambda: SHARED, 4, every_s=0.5))
        enter(crowd(other, OTHER, 1, scene.prompts, 8, every_s=0.2))
        yield scene


def small(folder: Path) -> Path:
    """A repository with the small model."""
    SmallModel(folder / "checkpoint", "llama", 1).write().publish(folder / OTHER, OTHER)
    give_slots(folder / OTHER, OTHER)
    return folder / OTHER
