"""What is compared, and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

OURS: Final = "halimede"


class Setting(StrEnum):
    """In one process with the measurement's prompts as ids, or as a server with a client beside it."""

    PROCESS = "in process"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Row:
    """`model` names what is scored: rows that run the same weights share its perplexity. `note` is printed
    under the table.
    """

    name: str
    title: str
    peer: str
    setting: Setting
    model: str
    note: str = ""


_BATCHED = (
    "llama-batched-bench: ids of its own choice, no sampling, all prompts before any answer, so its time to"
    " the first token is that of all prompts"
)
_DRAFTS = "up to 8 tokens proposed for a step: the same answers; no goal is judged by it"
_TUNED = "KV in f16, which costs no quality; activations quantised in groups of 64, not 32"
_Q4_1 = "the package's own file, whose dequantised weights are the reference"
ROWS: Final = (
    Row("engine", "Halimede int8", OURS, Setting.PROCESS, "halimede"),
    Row("engine-drafts", "Halimede int8, prompt lookup", OURS, Setting.PROCESS, "halimede", _DRAFTS),
    Row("openvino", "OpenVINO GenAI int8", "openvino", Setting.PROCESS, "openvino", "as it comes: KV in u8"),
    Row(
        "openvino-tuned", "OpenVINO GenAI int8, tuned", "openvino", Setting.PROCESS, "openvino-tuned", _TUNED
    ),
    Row("ort-int8", "ONNX Runtime GenAI int8", "onnxruntime-genai", Setting.PROCESS, "ort-int8"),
    Row("ort-int4", "ONNX Runtime GenAI int4", "onnxruntime-genai", Setting.PROCESS, "ort-int4"),
    Row("llama-q8_0", "llama.cpp Q8_0", "llama.cpp", Setting.PROCESS, "llama-q8_0", _BATCHED),
    Row("llama-q4_0", "llama.cpp Q4_0", "llama.cpp", Setting.PROCESS, "llama-q4_0"),
    Row("llama-q4_1", "llama.cpp Q4_1", "llama.cpp", Setting.PROCESS, "llama-q4_1", _Q4_1),
    Row("transformers", "transformers fp32", "transformers", Setting.PROCESS, "transformers"),
    Row("grpc", "Halimede int8, Triton gRPC", OURS, Setting.SERVER, "halimede"),
    Row("server-q8_0", "llama-server Q8_0", "llama.cpp", Setting.SERVER, "llama-q8_0"),
    Row("server-q4_0", "llama-server Q4_0", "llama.cpp", Setting.SERVER, "llama-q4_0"),
    Row("server-q4_1", "llama-server Q4_1", "llama.cpp", Setting.SERVER, "llama-q4_1"),
    Row("vllm", "vLLM bf16", "vllm", Setting.SERVER, "vllm"),
)
FURTHER: Final = "grpc:"
PEERS: Final = tuple(dict.fromkeys(row.peer for row in ROWS if row.peer != OURS))


@dataclass(frozen=True, slots=True)
class Plan:
    """Token counts are of one sequence; `windows` and `window_tokens` of the text that is scored. `also` has
    parameters of further servers of ours, as in "stream_interval=1".
    """

    peers: tuple[str, ...] = PEERS
    also: tuple[str, ...] = ()
    streams: tuple[int, ...] = (1, 8, 32)
    repeats: int = 3
    tokens_in: int = 128
    tokens_out: int = 64
    slots: int = 32
    max_context: int = 2048
    windows: int = 6
    window_tokens: int = 512
    quick: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        return (*(row for row in ROWS if row.peer in (OURS, *self.peers)), *map(further, self.also))

    @property
    def steps(self) -> int:
        """Of the progress shown: starts, scores, warm-ups and measurements."""
        scored = {row.model for row in self.rows}
        return len(self.rows) * (1 + len(self.streams) * (1 + self.repeats)) + len(scored)


def further(parameters: str) -> Row:
    """Our server with other parameters, beside the one as it comes."""
    return Row(FURTHER + parameters, f"Halimede int8, {parameters}", OURS, Setting.SERVER, "halimede")


def quick(plan: Plan) -> Plan:
    """Shows that everything runs; its figures mean nothing."""
    return replace(plan, streams=(1, 8), repeats=1, tokens_in=32, tokens_out=16, windows=1, quick=True)


def order(rows: tuple[str, ...], repeat: int) -> tuple[str, ...]:
    """The rows from another one on in each repeat, so that none always runs after the same neighbour."""
    start = repeat % len(rows) if rows else 0
    return rows[start:] + rows[:start]
