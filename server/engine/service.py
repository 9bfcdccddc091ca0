"""The engine as one object: artifact, runner, loop and its threads, ready after a self-test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.core.errors import ArtifactError, Cancelled, InternalError
from engine.core.request import Request
from engine.core.scheduler import Scheduler
from engine.core.slots import SlotTable
from engine.core.tokens import load_table
from engine.edge.artifact import Manifest, read_manifest
from engine.edge.channel import Signal, SignalReceiver
from engine.edge.chunks import Outbox, Responder
from engine.edge.metrics import Recorder
from engine.edge.settings import Footprint, Settings
from engine.edge.traces import Trace
from engine.loop import Loop
from engine.runners.opening import (  # experimental: docs/gpu.md
    Opened,
    card_of,
    choose_device,
    needs_gpu,
    open_cpu_runner,
    open_gpu_runner,
)
from engine.runners.runner import Runner, Verifier
from engine.streams import Encoder

Report = Callable[[BaseException], None]


class Service:
    """`start` runs the threads; `submit` takes requests from any thread; `close` ends what is left.

    After a bug in the loop no state can be trusted: all requests are ended, and then `give_up` is called. A
    service that only refused requests from then on would look healthy for ever. `signals` is the path of a
    socket that reports disconnected clients.
    """

    def __init__(
        self,
        opened: Opened,
        settings: Settings,
        signals: Path,
        report: Report,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        manifest, runner = opened.manifest, opened.runner
        source = settings.source_capacity(manifest.shape)
        slots = SlotTable(settings.slots, settings.max_context, source_capacity=source)
        stall = settings.prefill_stall_percent / 100
        drafts = settings.speculative_tokens if isinstance(runner, Verifier) else 0
        scheduler = Scheduler(slots, manifest.eos, settings.max_queue, settings.prefill_chunk, stall, drafts)
        self.manifest = manifest
        self.kernels = opened.kernels
        self.description = card_of(opened, replace(settings, speculative_tokens=drafts))
        self._give_up = give_up
        self.recorder = Recorder(report)
        self._outbox = Outbox(self.recorder, time.monotonic_ns)
        self.loop = Loop(
            scheduler, runner, load_table(manifest.path("tokens.bin")), manifest.shape.vocab_size,
            self._outbox, self.recorder, time.monotonic_ns, settings.heartbeat_ms * 1_000_000,
            _encoder(manifest), settings.stream_interval,
        )  # fmt: skip
        self._signals = SignalReceiver(signals, self._deliver, report)
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in {
                "engine-loop": self._run_loop,
                "engine-outbox": self._outbox.run,
                "engine-signals": self._signals.run,
            }.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request, responder: Responder, trace: Trace | None = None) -> int:
        """Raises EngineError at once when the request cannot be accepted."""
        return self.loop.submit(request, responder, self._signals.handle, trace)

    def close(self) -> None:
        loop, outbox, signals = self._threads
        self.loop.stop()
        loop.join()
        self._outbox.close()
        outbox.join()
        self._signals.close()
        signals.join()

    def _run_loop(self) -> None:
        sound = False
        try:
            sound = self.loop.run()
        finally:  # after any failure: no client may wait for ever
            if not sound:
                self._outbox.close()
                self._threads[1].join()
                self._give_up()

    def _deliver(self, key: int, signal: Signal) -> None:
        fault = InternalError("detokenizer", "could not decode a chunk; the request was ended")
        self.loop.cancel(key, fault if signal is Signal.FAULT else Cancelled("request", "by the client"))


def _encoder(manifest: Manifest) -> Encoder | None:
    if not manifest.shape.has_encoder:
        return None
    start = manifest.generation.get("decoder_start_token_id")
    return Encoder(manifest.shape.source_vocab_size, start, manifest.leading_space)


def open_service(
    folder: Path,
    settings: Settings,
    signals: Path,
    report: Report,
    placed: int | None = None,
    give_up: Callable[[], None] = lambda: None,
) -> Service:
    """Load the artifact, check that it fits, and prove that it runs; raises EngineError.

    `placed` is the GPU that Triton gave the instance, None for KIND_CPU.
    """
    manifest = read_manifest(folder)
    device = choose_device(settings.device, needs_gpu=needs_gpu(manifest), placed=placed)
    if device.gpu is None:
        opened = open_cpu_runner(manifest, settings)
    else:
        runner = open_gpu_runner(manifest, settings, device.gpu)
        budget = settings.kv_budget_bytes or None
        opened = Opened(manifest, runner, Footprint(manifest.shape), budget, str(device))
    self_test(opened.runner, opened.manifest, settings)
    return Service(opened, settings, signals, report, give_up)


def self_test(runner: Runner, manifest: Manifest, settings: Settings) -> None:
    """A short greedy generation, twice: the second must repeat the first, with finite logits."""
    answers = [_generate(runner, manifest, settings) for _ in range(2)]
    if answers[0] != answers[1]:
        raise ArtifactError("self-test", f"two equal prompts gave {answers[0]} and {answers[1]}")


def _generate(runner: Runner, manifest: Manifest, settings: Settings) -> list[int]:
    vocab = manifest.shape.vocab_size
    prompt = [1 % vocab, 2 % vocab, 3 % vocab][: settings.max_context - 1]
    if manifest.shape.has_encoder:
        runner.encode(0, prompt[: settings.source_capacity(manifest.shape)])
        prompt = [manifest.generation.get("decoder_start_token_id", 0)]
        logits = runner.decode(prompt, [0])
    else:
        logits = runner.prefill(0, 0, prompt)
    tokens: list[int] = []
    for position in range(len(prompt), min(len(prompt) + 4, settings.max_context)):
        if not np.isfinite(logits).all():
            raise ArtifactError("self-test", "the model returned logits that are not finite")
        tokens.append(int(logits.argmax()))
        logits = runner.decode(tokens[-1:], [position])
    return tokens
