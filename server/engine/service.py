"""The engine as one object: artifact, runner, loop and its threads, ready after a self-test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.channel import Signal, SignalReceiver
from engine.device import choose_device
from engine.errors import ArtifactError, Cancelled, InternalError
from engine.gpu import TENSORRT, open_gpu_runner
from engine.loop import Loop
from engine.manifest import Manifest, read_manifest, verify_files
from engine.outbox import Outbox, Responder
from engine.recorder import Recorder
from engine.request import Request
from engine.runner import Runner
from engine.runner_onnx import OnnxRunner, open_session
from engine.scheduler import Scheduler
from engine.settings import Settings, check_fit, free_memory
from engine.slots import SlotTable
from engine.tokens import load_table

Report = Callable[[BaseException], None]


class Service:
    """`start` runs the threads; `submit` takes requests from any thread; `close` ends what is left."""

    def __init__(self, manifest: Manifest, settings: Settings, runner: Runner, report: Report) -> None:
        slots = SlotTable(settings.slots, settings.max_context)
        scheduler = Scheduler(slots, manifest.eos, settings.max_queue, settings.prefill_chunk)
        self.manifest = manifest
        self.recorder = Recorder(report)
        self._outbox = Outbox(report)
        self.loop = Loop(
            scheduler, runner, load_table(manifest.path("tokens.bin")), manifest.shape.vocab_size,
            self._outbox, self.recorder, time.monotonic_ns, settings.heartbeat_ms * 1_000_000,
        )  # fmt: skip
        self._signals = SignalReceiver(self._deliver)
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in {
                "engine-loop": self.loop.run,
                "engine-outbox": self._outbox.run,
                "engine-signals": self._signals.run,
            }.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request, responder: Responder) -> int:
        """Raises EngineError at once when the request cannot be accepted."""
        return self.loop.submit(request, responder, self._signals.handle)

    def close(self) -> None:
        loop, outbox, signals = self._threads
        self.loop.stop()
        loop.join()
        self._outbox.close()
        outbox.join()
        self._signals.close()
        signals.join()

    def _deliver(self, key: int, signal: Signal) -> None:
        fault = InternalError("detokenizer", "could not decode a chunk; the request was ended")
        self.loop.cancel(key, fault if signal is Signal.FAULT else Cancelled("request", "by the client"))


def open_service(folder: Path, settings: Settings, report: Report, placed: int | None = None) -> Service:
    """Load the artifact, check that it fits, and prove that it runs; raises EngineError.

    `placed` is the GPU that Triton gave the instance, None for KIND_CPU.
    """
    manifest = read_manifest(folder)
    device = choose_device(settings.device, tensorrt=manifest.dialect == TENSORRT, placed=placed)
    if device.gpu is None:
        runner = _open_cpu_runner(manifest, settings)
    else:
        runner = open_gpu_runner(manifest, settings, device.gpu)
    self_test(runner, manifest, settings)
    return Service(manifest, settings, runner, report)


def _open_cpu_runner(manifest: Manifest, settings: Settings) -> Runner:
    check_fit(settings, manifest.shape, free_memory())
    verify_files(manifest, tuple({*manifest.files, "model.onnx", "tokens.bin"}))
    session = open_session(manifest.path("model.onnx"), settings.thread_count)
    return OnnxRunner(session, manifest.shape, settings.slots, settings.max_context, settings.prefill_chunk)


def self_test(runner: Runner, manifest: Manifest, settings: Settings) -> None:
    """A short greedy generation, twice: the second must repeat the first, with finite logits."""
    answers = [_generate(runner, manifest.shape.vocab_size, settings) for _ in range(2)]
    if answers[0] != answers[1]:
        raise ArtifactError("self-test", f"two equal prompts gave {answers[0]} and {answers[1]}")


def _generate(runner: Runner, vocab: int, settings: Settings) -> list[int]:
    prompt = [1 % vocab, 2 % vocab, 3 % vocab][: settings.max_context - 1]
    logits, tokens = runner.prefill(0, 0, prompt), []
    for position in range(len(prompt), min(len(prompt) + 4, settings.max_context)):
        if not np.isfinite(logits).all():
            raise ArtifactError("self-test", "the model returned logits that are not finite")
        tokens.append(int(logits.argmax()))
        logits = runner.decode(tokens[-1:], [position])
    return tokens
