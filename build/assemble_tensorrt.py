"""A TensorRT engine: graphs that are checked wherever they are built, and plans where there is a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from build import verify
from build.architecture import Model, layers
from build.architecture.parts import Architecture
from build.assembly import ALL_POSITIONS, ENCODER, GRAPH, WEIGHTS, Also, Facts, Progress
from build.checkpoint import Checkpoint
from build.dialects.contents import Scored, store_decoder, store_encoder_decoder
from build.dialects.tensorrt.builder import (
    Profile,
    Toolkit,
    check_and_serialise,
    decode_profile,
    encoder_profile,
    named,
    prefill_profile,
)
from build.dialects.tensorrt.check import require_sound
from build.dialects.tensorrt.cross_decoder import build_cross_decoder
from build.dialects.tensorrt.decoder import build_decoder
from build.dialects.tensorrt.encoder import build_encoder
from build.dialects.tensorrt.executor_cpu import CpuExecutor
from build.dialects.tensorrt.host import Host  # experimental: docs/gpu.md
from build.dialects.tensorrt.precision import BLOCK_SIZES, compute_type, require_precision
from build.dialects.tensorrt.session import Session
from build.dialects.tensorrt.sizes import Room, Sizes, sizes
from build.dialects.tensorrt.store import Store
from build.dialects.tensorrt.toolkit import Missing
from build.dialects.weight_file import WeightFile
from build.errors import BadInput, Unbuilt
from build.generation import decoder_start
from build.quantise import Floats, Precision
from build.recipe import Limits
from build.verify import Lesson, Quality, Text

PLAN, ENCODER_PLAN = "model.plan", "encoder.plan"
_CHECKED_ROWS = 2  # of the graph that is served, on a CPU
# The share of the largest logit by which the served graph may differ from the verified one: TensorRT's types
# are narrow, and one token at a time rounds otherwise than many at once.
_SAME = 0.1


@dataclass(frozen=True)
class PlanOptions:
    """What the command says of plans. `checker` and `host` raise Missing where there is none."""

    checker: Callable[[], Toolkit]
    host: Callable[[], Host]
    room: Room = field(default_factory=Room)
    keep_onnx: Path | None = None
    int4_block: int = BLOCK_SIZES[0]


@dataclass
class TensorRtAssembly:
    checkpoint: Checkpoint
    model: Model
    precision: Precision
    limits: Limits
    plans: PlanOptions
    _report: list[str] = field(default_factory=list)  # of the checks, for a host that can build no plan
    _facts: Facts | None = None

    def require_buildable(self) -> None:
        require_precision(self.precision)
        if not isinstance(self.model, Architecture):
            decoder_start(self.checkpoint)
        kept = self.plans.keep_onnx
        if kept is not None and kept.exists() and any(kept.iterdir()):
            raise BadInput(f"--keep-onnx {kept}: must be a folder that is new or empty")

    def write(self, folder: Path, progress: Progress) -> None:
        """Raises BuildError where a graph breaks a rule of the dialect."""
        room, model, graphs = self._sizes(), self.model, {}
        advance = progress.stage("weights", layers(model))
        with WeightFile(folder / WEIGHTS) as file:
            store = Store(self.checkpoint, self.precision, file, self.plans.int4_block)
            if isinstance(model, Architecture):
                store_decoder(store, model, advance)
            else:
                store_encoder_decoder(store, model, advance)
        for scored, name in ((Scored.LAST, GRAPH), (Scored.ALL, ALL_POSITIONS)):
            if isinstance(model, Architecture):
                graphs[name] = build_decoder(model, store, room.capacity, scored)
            else:
                graphs[name] = build_cross_decoder(model, store, room.capacity, room.source_capacity, scored)
        if not isinstance(model, Architecture):
            graphs[ENCODER] = build_encoder(model, store)
        for name, graph in graphs.items():
            require_sound(graph, name)
            ir.save(graph, folder / name)
        self._report.append(f"passed   {' and '.join(self._profiles())}: the rules of the dialect hold")

    def verify(self, folder: Path, progress: Progress, tokens: int, also: Also | None = None) -> Quality:
        """Scores the plans; raises Unbuilt after all other checks where this host can build none."""
        assert also is None, "recipes with steps are for ONNX Runtime"
        room = self._sizes()
        text = verify.english(self.checkpoint, self.model, tokens, room.capacity, room.source_capacity)
        lesson = verify.learn(
            self.checkpoint, self.model, text, progress.stage("reference", layers(self.model))
        )
        self._check_numerics(folder, lesson, progress)
        self._check_networks(folder, progress)
        self._keep(folder)
        try:
            host = self.plans.host()
        except Missing as reason:
            raise self._unbuilt(reason) from reason
        self._build(folder, host, progress)
        return self._verify_plans(folder, host, lesson, progress)

    def facts(self) -> Facts:
        assert self._facts is not None
        return self._facts

    def _sizes(self) -> Sizes:
        item = np.dtype(compute_type(self.precision, self.model.family).numpy()).itemsize
        return sizes(self.model, self.plans.room, item)

    def _profiles(self) -> dict[str, list[Profile]]:
        """The optimisation profiles of each graph."""
        room = self._sizes()
        if isinstance(self.model, Architecture):
            return {GRAPH: [decode_profile(room.rows), prefill_profile(room.prefill)]}
        return {GRAPH: [decode_profile(room.rows)], ENCODER: [encoder_profile(room.source_capacity)]}

    def _check_numerics(self, folder: Path, lesson: Lesson, progress: Progress) -> None:
        """Runs the graphs with ONNX Runtime on a CPU."""
        text = lesson.text
        encoder = None if isinstance(self.model, Architecture) else folder / ENCODER
        every = Session(CpuExecutor(folder / ALL_POSITIONS, 1, encoder))
        quality = verify.read(every, lesson, progress.stage("numerics", len(text.inputs)))
        verify.require(quality, self.limits)
        served = Session(CpuExecutor(folder / GRAPH, _CHECKED_ROWS, encoder), _CHECKED_ROWS)
        self._require_same(verify.read_last(every, text), served, text, GRAPH)
        for name in (ALL_POSITIONS, *(f"cpu_{graph}" for graph in (ALL_POSITIONS, GRAPH, ENCODER))):
            (folder / name).unlink(missing_ok=True)
        self._report.append(
            f"passed   numerics on a CPU: perplexity {quality.perplexity:.3f}, the reference's is"
            f" {quality.reference_perplexity:.3f}, greedy agreement {quality.greedy_agreement:.3f}"
        )

    def _check_networks(self, folder: Path, progress: Progress) -> None:
        try:
            toolkit = self.plans.checker()
        except Missing as reason:
            self._report.append(f"skipped  what TensorRT makes of the graphs: {reason}")
            return
        for name, profiles in self._profiles().items():
            check_and_serialise(toolkit, folder / name, profiles, progress)
        done = "parsed, walked through and built, profiles and all, without a GPU"
        self._report.append(f"passed   {named(toolkit.module)}: {done}")

    def _keep(self, folder: Path) -> None:
        kept = self.plans.keep_onnx
        if kept is None:
            return
        kept.mkdir(parents=True, exist_ok=True)
        for name in (*self._profiles(), WEIGHTS):
            shutil.copy2(folder / name, kept / name)

    def _unbuilt(self, reason: Missing) -> Unbuilt:
        kept = self.plans.keep_onnx
        lines = [*self._report, f"not done the plan: {reason}"]
        lines += [f"kept     the checked ONNX files: {kept}"] if kept is not None else []
        lines.append(
            "Nothing was published. Run the same command on the GPU host that will serve the engine, inside"
            " its Triton image: docs/gpu.md"
        )
        return Unbuilt("\n".join(lines))

    def _build(self, folder: Path, host: Host, progress: Progress) -> None:
        """Replaces the graphs and their weights by plans."""
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

    def _verify_plans(self, folder: Path, host: Host, lesson: Lesson, progress: Progress) -> Quality:
        text, decoder_only = lesson.text, isinstance(self.model, Architecture)
        encoder = None if decoder_only else folder / ENCODER_PLAN
        rows = min(self._sizes().rows, max(len(text.inputs), _CHECKED_ROWS))
        with host.executor(folder / PLAN, rows, encoder) as executor:
            session = Session(executor, rows)
            advance = progress.stage("verify the plan", verify.steps(text, rows))
            quality = verify.step(session, lesson, advance)
            if decoder_only:
                self._require_same(verify.step_last(session, text), session, text, PLAN)
        return quality

    def _require_same(self, expected: Floats, session: Session, text: Text, name: str) -> None:
        verify.require_same(expected, session, text, self._sizes().prefill, _SAME, name)
