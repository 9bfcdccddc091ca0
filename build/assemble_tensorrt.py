"""A TensorRT engine: graphs that are checked wherever they are built, and plans where there is a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from build import verify
from build.architecture import Model
from build.architecture.parts import Architecture
from build.assembly import ENCODER, GRAPH, WEIGHTS, Facts, Progress
from build.checkpoint import Checkpoint
from build.dialects.tensorrt import lesson
from build.dialects.tensorrt.builder import (
    Profile,
    Toolkit,
    check_and_serialise,
    decode_profile,
    encoder_profile,
    named,
    prefill_profile,
)
from build.dialects.tensorrt.executor_cpu import CpuExecutor
from build.dialects.tensorrt.graphs import ALL_POSITIONS, layers, write_graphs
from build.dialects.tensorrt.host import Host
from build.dialects.tensorrt.precision import compute_type, require_precision
from build.dialects.tensorrt.rounding import BLOCK_SIZES
from build.dialects.tensorrt.session import Session
from build.dialects.tensorrt.sizes import Room, Sizes, sizes
from build.dialects.tensorrt.toolkit import Missing
from build.errors import BadInput, Unbuilt
from build.generation import decoder_start
from build.quantise import Precision
from build.recipe import Limits
from build.verify import Quality

PLAN, ENCODER_PLAN = "model.plan", "encoder.plan"
_CHECKED_ROWS = 2  # of the graph that is served, on a CPU


@dataclass(frozen=True)
class PlanOptions:
    """How plans are asked for, and what they are checked and built by; both of these raise Missing."""

    checker: Callable[[], Toolkit]
    host: Callable[[], Host]
    room: Room = field(default_factory=Room)
    keep_onnx: Path | None = None
    int4_block: int = BLOCK_SIZES[0]


class _Report:
    """What has been checked, for a host that can build no plan."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._kept: Path | None = None

    def passed(self, check: str) -> None:
        self._lines.append(f"passed   {check}")

    def skipped(self, check: str) -> None:
        self._lines.append(f"skipped  {check}")

    def kept(self, folder: Path) -> None:
        self._kept = folder

    def unbuilt(self, reason: str) -> Unbuilt:
        lines = [*self._lines, f"not done the plan: {reason}"]
        if self._kept is not None:
            lines.append(f"kept     the checked ONNX files: {self._kept}")
        lines.append(
            "Nothing was published. Run the same command on the GPU host that will serve the engine, inside"
            " its Triton image: docs/tensorrt.md"
        )
        return Unbuilt("\n".join(lines))


@dataclass
class TensorRtAssembly:
    """`facts` are known once `verify` has built the plans."""

    checkpoint: Checkpoint
    model: Model
    precision: Precision
    limits: Limits
    plans: PlanOptions
    _report: _Report = field(default_factory=_Report)
    _facts: Facts | None = None

    def require_buildable(self) -> None:
        require_precision(self.precision)
        if not isinstance(self.model, Architecture):
            decoder_start(self.checkpoint)
        kept = self.plans.keep_onnx
        if kept is not None and kept.exists() and any(kept.iterdir()):
            raise BadInput(f"--keep-onnx {kept}: must be a folder that is new or empty")

    def write(self, folder: Path, progress: Progress) -> None:
        block = self.plans.int4_block
        write_graphs(folder, self.checkpoint, self.model, self.precision, block, self._sizes(), progress)
        self._report.passed(f"{' and '.join(self._profiles())}: the rules of the dialect hold")

    def verify(self, folder: Path, progress: Progress, tokens: int) -> Quality:
        """Of the plans; raises Unbuilt after all other checks where this host can build none."""
        text = self._learn(progress, tokens)
        self._check_numerics(folder, text, progress)
        self._check_networks(folder, progress)
        self._keep(folder)
        try:
            host = self.plans.host()
        except Missing as reason:
            raise self._report.unbuilt(str(reason)) from reason
        self._build(folder, host, progress)
        return self._verify_plans(folder, host, text, progress)

    def facts(self) -> Facts:
        assert self._facts is not None
        return self._facts

    def _sizes(self) -> Sizes:
        item = np.dtype(compute_type(self.precision, self.model.family).numpy()).itemsize
        return sizes(self.model, self.plans.room, item)

    def _profiles(self) -> dict[str, list[Profile]]:
        """Of each graph."""
        room = self._sizes()
        if isinstance(self.model, Architecture):
            return {GRAPH: [decode_profile(room.rows), prefill_profile(room.prefill)]}
        return {GRAPH: [decode_profile(room.rows)], ENCODER: [encoder_profile(room.source_capacity)]}

    def _learn(self, progress: Progress, tokens: int) -> lesson.Lesson:
        advance = progress.stage("reference", layers(self.model))
        return lesson.learn(self.checkpoint, self.model, self._sizes(), tokens, advance)

    def _check_numerics(self, folder: Path, text: lesson.Lesson, progress: Progress) -> None:
        """On ONNX Runtime's CPU."""
        encoder = None if isinstance(self.model, Architecture) else folder / ENCODER
        every = Session(CpuExecutor(folder / ALL_POSITIONS, 1, encoder))
        quality = lesson.read(every, text, progress.stage("numerics", len(text.inputs)))
        verify.require(quality, self.limits)
        served = Session(CpuExecutor(folder / GRAPH, _CHECKED_ROWS, encoder), _CHECKED_ROWS)
        lesson.require_same(lesson.read_last(every, text), served, text, self._sizes().prefill, GRAPH)
        for name in (ALL_POSITIONS, *(f"cpu_{graph}" for graph in (ALL_POSITIONS, GRAPH, ENCODER))):
            (folder / name).unlink(missing_ok=True)
        self._report.passed(
            f"numerics on a CPU: perplexity {quality.perplexity:.3f}, the reference's is"
            f" {quality.reference_perplexity:.3f}, greedy agreement {quality.greedy_agreement:.3f}"
        )

    def _check_networks(self, folder: Path, progress: Progress) -> None:
        try:
            toolkit = self.plans.checker()
        except Missing as reason:
            self._report.skipped(f"what TensorRT makes of the graphs: {reason}")
            return
        for name, profiles in self._profiles().items():
            check_and_serialise(toolkit, folder / name, profiles, progress)
        self._report.passed(
            f"{named(toolkit.module)}: parsed, walked through and built, profiles and all, without a GPU"
        )

    def _keep(self, folder: Path) -> None:
        kept = self.plans.keep_onnx
        if kept is None:
            return
        kept.mkdir(parents=True, exist_ok=True)
        for name in (*self._profiles(), WEIGHTS):
            shutil.copy2(folder / name, kept / name)
        self._report.kept(kept)

    def _build(self, folder: Path, host: Host, progress: Progress) -> None:
        for name, profiles in self._profiles().items():
            plan = check_and_serialise(host.toolkit, folder / name, profiles, progress)
            (folder / name).with_suffix(".plan").write_bytes(plan)
        for name in (*self._profiles(), WEIGHTS):
            (folder / name).unlink()
        room = self._sizes()
        self._facts = Facts(
            dialect="tensorrt",
            kv_dtype=str(compute_type(self.precision, self.model.family).numpy()),
            engine={
                "tensorrt": host.version,
                "compute_capability": host.compute_capability,
                "profiles": room.as_json(),
            },
            settings=room.settings(),
        )

    def _verify_plans(self, folder: Path, host: Host, text: lesson.Lesson, progress: Progress) -> Quality:
        decoder_only = isinstance(self.model, Architecture)
        encoder = None if decoder_only else folder / ENCODER_PLAN
        rows = min(self._sizes().rows, max(len(text.inputs), _CHECKED_ROWS))
        with host.executor(folder / PLAN, rows, encoder) as executor:
            session = Session(executor, rows)
            advance = progress.stage("verify the plan", lesson.steps(text, rows))
            quality = lesson.step(session, text, advance)
            if decoder_only:
                expected = lesson.step_last(session, text)
                lesson.require_same(expected, session, text, self._sizes().prefill, PLAN)
        return quality
