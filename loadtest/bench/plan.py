"""What a run measures: models, rows, loads, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from loadtest.artifacts import MODEL
from loadtest.errors import BenchError

OURS: Final = "halimede"
REFERENCE: Final = "transformers"
TINY: Final = "tiny-"


class Setting(StrEnum):
    """A row runs in one process that gets prompts as token ids, or as a server with a client."""

    PROCESS = "in process"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Row:
    """`peer` is whose program it is. Rows with the same `weights` share one score of quality. `note` is
    printed under the table.
    """

    name: str
    title: str
    setting: Setting
    peer: str = OURS
    weights: str = OURS
    note: str = ""


_DRAFTS = "up to 8 tokens proposed for a step: the same answers; no target is judged by it"
_TUNED = "KV in f16, which costs no quality; activations quantised in groups of 64, not 32"
_BATCHED = (
    "llama-batched-bench: ids of its own choice, no sampling, all prompts before any answer, so its time to"
    " the first token is that of all prompts"
)
_Q4_1 = "the package's own file, whose dequantised weights are the reference"
_ORT, _LLAMA, _OPENVINO = "onnxruntime-genai", "llama.cpp", "openvino"
ROWS: Final = (
    Row("engine", "Halimede int8", Setting.PROCESS),
    Row("engine-drafts", "Halimede int8, prompt lookup", Setting.PROCESS, note=_DRAFTS),
    Row("openvino", "OpenVINO GenAI int8", Setting.PROCESS, _OPENVINO, "openvino", "by default: KV in u8"),
    Row("openvino-tuned", "OpenVINO GenAI int8, tuned", Setting.PROCESS, _OPENVINO, "openvino-tuned", _TUNED),
    Row("ort-int8", "ONNX Runtime GenAI int8", Setting.PROCESS, _ORT, "ort-int8"),
    Row("ort-int4", "ONNX Runtime GenAI int4", Setting.PROCESS, _ORT, "ort-int4"),
    Row("llama-q8_0", "llama.cpp Q8_0", Setting.PROCESS, _LLAMA, "llama-q8_0", _BATCHED),
    Row("llama-q4_0", "llama.cpp Q4_0", Setting.PROCESS, _LLAMA, "llama-q4_0"),
    Row("llama-q4_1", "llama.cpp Q4_1", Setting.PROCESS, _LLAMA, "llama-q4_1", _Q4_1),
    Row(REFERENCE, "transformers fp32", Setting.PROCESS, REFERENCE, REFERENCE),
    Row("grpc", "Halimede int8, Triton gRPC", Setting.SERVER),
    Row("http", "Halimede int8, Triton HTTP", Setting.SERVER),
    Row("url", "running server", Setting.SERVER),
    Row("server-q8_0", "llama-server Q8_0", Setting.SERVER, _LLAMA, "llama-q8_0"),
    Row("server-q4_0", "llama-server Q4_0", Setting.SERVER, _LLAMA, "llama-q4_0"),
    Row("server-q4_1", "llama-server Q4_1", Setting.SERVER, _LLAMA, "llama-q4_1"),
    Row("vllm", "vLLM bf16", Setting.SERVER, "vllm", "vllm"),
)
# What is measured without a load: a decode step of the bare graph, a server with default settings, a build.
BARE, FOOTPRINT, BUILD = "bare", "footprint", "build"
PEERS: Final = tuple(dict.fromkeys(row.peer for row in ROWS if row.peer not in (OURS, REFERENCE)))
OWN: Final = (*(row.name for row in ROWS if row.peer not in PEERS), BARE, FOOTPRINT, BUILD)


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests at once: one batch of transformers, as many requests of a server."""

    streams: int
    beams: int = 1

    def __str__(self) -> str:
        return f"{self.streams}" if self.beams == 1 else f"{self.beams} beams, {self.streams}"


@dataclass(frozen=True, slots=True)
class RandomWeights:
    """The fields of a transformers configuration, in the real size of the family and tiny for --quick."""

    family: str
    config: Mapping[str, int]
    tiny: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Model:
    """`rows` are measured by default, of those it `has`. `random` is None for the package's weights."""

    name: str
    tokens_in: int
    loads: tuple[Load, ...]
    rows: tuple[str, ...]
    random: RandomWeights | None = None

    @property
    def has(self) -> tuple[str, ...]:
        if self.random is None:
            return tuple(name for name in OWN if name != BUILD)
        return (BUILD, REFERENCE, "engine", "grpc", "http")


def greedy(streams: tuple[int, ...]) -> tuple[Load, ...]:
    return tuple(map(Load, streams))


def _gpt2(layers: int, hidden: int, heads: int, vocab: int, positions: int) -> dict[str, int]:
    sizes = {"n_layer": layers, "n_embd": hidden, "n_head": heads}
    return sizes | {"vocab_size": vocab, "n_positions": positions}


def _bart(layers: int, hidden: int, heads: int, vocab: int, positions: int) -> dict[str, int]:
    each = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * hidden}
    stacks = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in each.items()}
    return stacks | {"d_model": hidden, "vocab_size": vocab, "max_position_embeddings": positions}


SMOLLM2: Final = Model(
    MODEL, 128, greedy((1, 4, 8, 16, 32)), (FOOTPRINT, REFERENCE, "engine", BARE, "grpc", "http")
)
# With peers, or with --score.
COMPARED: Final = replace(
    SMOLLM2, loads=greedy((1, 8, 32)), rows=("engine", "engine-drafts", REFERENCE, "grpc")
)
_TINY = (2, 64, 4, 600, 256)
_GPT2 = RandomWeights("gpt2", _gpt2(12, 768, 12, 50257, 1024), _gpt2(*_TINY))
_BART_BASE = RandomWeights("bart", _bart(6, 768, 12, 50265, 1024), _bart(*_TINY))
_BART_LARGE = RandomWeights("bart", _bart(12, 1024, 16, 50265, 1024), _bart(*_TINY))
_SEQ2SEQ = (Load(1), Load(8), Load(1, beams=4), Load(4, beams=4))
MODELS: Final = {
    model.name: model
    for model in (
        SMOLLM2,
        Model("gpt2", 128, greedy((1, 8)), (BUILD, REFERENCE, "grpc"), _GPT2),
        Model("bart-base", 256, _SEQ2SEQ, (REFERENCE, "grpc"), _BART_BASE),
        Model("bart-large", 256, _SEQ2SEQ, (BUILD,), _BART_LARGE),
    )
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Token counts are of one stream. `rows` are chosen instead of each model's own. `slots` is for the rows
    under load, `default_slots` for the footprint, whose `fill_tokens` are prompt and answer together.
    `windows` of `window_tokens` are scored.
    """

    models: tuple[Model, ...] = (SMOLLM2,)
    rows: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    url: str | None = None
    score: bool = False
    repeats: int = 3
    tokens_out: int = 64
    slots: int = 32
    default_slots: int = 16
    max_context: int = 2048
    # More would take too long.
    reference_streams: tuple[int, ...] = (1, 8)
    step_batches: tuple[int, ...] = (1, 8, 16)
    prefix_tokens: int = 400
    prefix_pairs: int = 5
    fill_tokens: int = 2048
    windows: int = 6
    window_tokens: int = 512
    quick: bool = False

    def has(self, model: Model, name: str) -> bool:
        """Whether the row, or the measurement without a load, is one of this run."""
        return name in model.has and name in (self.rows or model.rows)

    def loaded(self, model: Model) -> tuple[Row, ...]:
        """The rows that are put under load, in the order of the tables."""
        peers = self.peers if model.random is None else ()
        return tuple(row for row in ROWS if row.peer in peers or self.has(model, row.name))

    def runs(self, model: Model, row: Row, load: Load) -> bool:
        limited = row.name == REFERENCE and model.random is None and not self.score
        return not limited or load.streams in self.reference_streams

    def scores(self, model: Model) -> bool:
        return self.score and model.random is None

    def slots_for(self, model: Model) -> int:
        needed = max(load.streams * load.beams for load in model.loads)
        return self.slots if model.random is None else max(self.default_slots, needed)

    def check(self) -> None:
        """BenchError if its parts do not fit together."""
        if (self.peers or self.url or self.score) and all(m.random for m in self.models):
            raise BenchError(f"--peers, --score and --url are for {MODEL}: add it to --models")
        for model in self.models:
            names = {row.name for row in self.loaded(model)}
            if "url" in names and not self.url:
                raise BenchError("--rows url: needs --url, the address of a running server")
            if self.has(model, BARE) and "engine" not in names:
                raise BenchError("--rows bare: needs the row engine, whose steps it repeats")
            if not names and not any(self.has(model, name) for name in (FOOTPRINT, BUILD)):
                known = ",".join(model.has)
                raise BenchError(f"--rows {','.join(self.rows)}: {model.name} has {known}, and none of these")
            most = max(load.streams for load in model.loads)
            if most > self.slots:
                raise BenchError(f"--streams {most}: must be at most {self.slots}, the slots")


def quick(plan: Plan) -> Plan:
    """Shows that everything runs; its figures mean nothing."""

    def small(model: Model) -> Model:
        if model.random is None:
            rows = tuple(name for name in model.rows if name != REFERENCE)
            return replace(model, tokens_in=32, loads=greedy((1, 8)), rows=rows)
        tiny = replace(model.random, config=model.random.tiny)
        return replace(model, name=f"{TINY}{model.name}", tokens_in=48, random=tiny)

    return replace(
        plan,
        models=tuple(map(small, plan.models)),
        step_batches=(1, 8),
        repeats=1,
        tokens_out=24,
        prefix_pairs=1,
        fill_tokens=96,
        windows=1,
        quick=True,
    )


def order(rows: tuple[str, ...], repeat: int) -> tuple[str, ...]:
    """Each repeat begins with another row, so that none always runs after the same neighbour."""
    start = repeat % len(rows) if rows else 0
    return rows[start:] + rows[:start]
