"""What tests of the benchmark share: a tokenizer of bytes, and the parts of a made-up run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from loadtest.bench.footprint import Footprint, Prefix
from loadtest.bench.plan import OURS
from loadtest.bench.quality import Quality
from loadtest.bench.sample import Sample
from loadtest.memory import Memory

MACHINE = {
    "cpu": "a CPU",
    "kernels": "avx2",
    "cores": 2,
    "date": "today",
    "commit": "abc",
    "uncommitted_changes": False,
}
QUALITIES = {
    OURS: Quality(10.71, -0.001, None, 3072),
    "openvino": Quality(10.85, 0.0122, 0.002, 3066),
    "openvino-tuned": Quality(10.81, 0.0087, 0.002, 3066),
    "llama-q4_0": Quality(13.0, 0.2, 0.01, 3066),
    "llama-q8_0": Quality(10.73, 0.001, 0.001, 3066),
    "vllm": Quality(10.72, 0.0, 0.0, 3066),
}


def sample(row: str, streams: int, rate: float, repeat: int = 0) -> Sample:
    """64 tokens a stream at that rate."""
    tokens = 64 * streams
    first = (0.1,) * streams
    return Sample("smollm2", row, streams, 1, repeat, tokens, tokens, tokens / rate, rate, first, 0.01, 0.02)


def footprint(pss: int) -> Footprint:
    prefix = (Prefix(0.4, 0.02), Prefix(0.5, 0.03), Prefix(0.6, 0.06))
    return Footprint(3.5, "2.51.0", prefix, Memory(9, 8, 5), Memory(pss + 500_000_000, pss, 5))


def manifest(name: str, quality: Mapping[str, float], parameters: int = 135_000_000) -> dict[str, Any]:
    return {
        "name": name,
        "precision": "int8",
        "model": {"parameters": parameters},
        "size_bytes": 1,
        "quality": dict(quality),
    }


def characters() -> Tokenizer:
    """A token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made
