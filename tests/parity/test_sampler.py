from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.core.request import Sampling
from engine.sampling.sampler import CANDIDATES, Floats
from tests.unit.engine.sampling.draws import VOCAB, chooser, logits_of, seeds, tokens_at

FILTERS: list[dict[str, float]] = [
    {"temperature": 0.7},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.3},
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.2, "top_k": 50, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 50.0, "top_p": 0.99},  # nearly flat: more tokens stay than the first candidates
    {"temperature": 1.0, "top_k": VOCAB + 1, "min_p": 0.001},
]


def transformers_probabilities(logits: Floats, sampling: dict[str, float]) -> NDArray[np.float64]:
    """The distribution that transformers' logits processors leave."""
    import torch  # noqa: PLC0415
    from transformers.generation import logits_process as hf  # noqa: PLC0415

    scores = torch.from_numpy(logits.reshape(1, -1).copy())
    ids = torch.zeros((1, 0), dtype=torch.long)
    steps: list[Any] = [hf.TemperatureLogitsWarper(sampling["temperature"])]
    if k := sampling.get("top_k"):
        steps.append(hf.TopKLogitsWarper(int(k)))
    if p := sampling.get("top_p"):
        steps.append(hf.TopPLogitsWarper(p))
    if m := sampling.get("min_p"):
        steps.append(hf.MinPLogitsWarper(m))
    for step in steps:
        scores = step(ids, scores)
    found: NDArray[np.float64] = torch.softmax(scores.double(), dim=-1)[0].numpy()
    return found


@pytest.mark.parity
@pytest.mark.parametrize("sampling", FILTERS, ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_distribution_equals_transformers(sampling: dict[str, float], seed: int) -> None:
    """Over evenly spaced random numbers each token comes up as often as its probability says."""
    logits = logits_of(seed)[0]
    wanted = transformers_probabilities(logits, sampling)
    found = Counter(tokens_at(logits, ((i + 0.5) / 1000 for i in range(1000)), **sampling))
    for token in range(VOCAB):
        assert abs(found[token] - 1000 * wanted[token]) <= 2
    assert {token for token, count in found.items() if count} <= set(np.flatnonzero(wanted).tolist())


def kept_tokens(logits: Floats, **sampling: Any) -> set[int]:
    """The tokens that the filters leave, the rarest among them too."""
    from engine.sampling.sampler import _filter, _weights  # noqa: PLC0415

    one = Sampling(max_tokens=1, **sampling)
    weights = _weights(logits.reshape(1, -1).copy(), np.array([one.temperature], np.float32))[0]
    width = min(max(CANDIDATES, one.top_k), len(weights))
    kept = _filter(weights, one, width)
    if kept is None:
        kept = _filter(weights, one, len(weights))
    assert kept is not None
    return set(kept.tolist())


@pytest.mark.parity
@pytest.mark.parametrize("sampling", FILTERS[1:], ids=str)
@pytest.mark.parametrize("scale", [0.01, 1, 4])
def test_kept_tokens_equal_transformers(sampling: dict[str, float], scale: float) -> None:
    for seed in range(10):
        logits = logits_of(seed, scale=scale)[0]
        wanted = set(np.flatnonzero(transformers_probabilities(logits, sampling)).tolist())
        assert kept_tokens(logits, **sampling) == wanted


@pytest.mark.parity
@given(seeds, st.floats(0.25, 4), st.lists(st.integers(0, VOCAB - 1), max_size=30))
def test_repetition_penalty_equals_transformers(seed: int, penalty: float, prompt: list[int]) -> None:
    import torch  # noqa: PLC0415
    from transformers.generation.logits_process import (  # noqa: PLC0415
        RepetitionPenaltyLogitsProcessor,
    )

    logits = logits_of(seed)
    row = logits[0].copy()
    chooser(prompt=tuple(prompt), repetition_penalty=penalty).edit(row)
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    ids = torch.tensor([prompt], dtype=torch.long)
    wanted = processor(ids, torch.from_numpy(logits.copy()))[0].numpy()
    np.testing.assert_allclose(row, wanted, rtol=1e-6)
