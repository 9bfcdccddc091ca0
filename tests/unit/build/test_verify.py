from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build import verify
from build.architecture import describe
from build.dialects.contents import Scored
from build.errors import BuildError
from build.quantise import Precision
from build.recipe import Limits
from build.sources.folder import open_folder
from build.verify import Quality
from tests.models import tiny
from tests.models.engines import write_engine

TOKENIZER = json.dumps(tiny.tokenizer_json()).encode()
GOOD = Quality(100, 10.0, 10.1, 0.99, 0.01)


@pytest.mark.parametrize(
    ("positions", "tokens", "shape"),
    [(8192, 3072, (6, 512)), (64, 256, (4, 64)), (8192, 100, (1, 100)), (8192, 700, (1, 512))],
)
def test_windows_are_as_long_as_the_model_allows(positions: int, tokens: int, shape: tuple[int, int]) -> None:
    ids = verify.windows(TOKENIZER, positions, tokens)
    assert ids.shape == shape
    assert len({tuple(window) for window in ids.tolist()}) == shape[0]


def test_windows_begin_as_a_prompt_does() -> None:
    first = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    content = {**tiny.tokenizer_json(), "post_processor": processor}
    ids = verify.windows(json.dumps(content).encode(), 64, 128)
    assert ids.shape == (2, 64)
    assert (ids[:, 0] == 1).all()
    np.testing.assert_array_equal(ids[:, 1:], verify.windows(TOKENIZER, 64, 128)[:, :-1])


def test_a_score_is_of_all_tokens_together() -> None:
    """More of them than are looked at in one piece."""
    random = np.random.default_rng(0)
    expected, noise = random.standard_normal((2, 150, 9)).astype(np.float32)
    following = random.integers(0, 9, 149)
    score = verify.compare(expected, expected + noise, following)
    weights = np.exp(expected[:-1].astype(np.float64))
    chosen = weights[np.arange(149), following] / weights.sum(axis=-1)
    assert score.reference_loss == pytest.approx(-np.log(chosen).mean(), rel=1e-6)
    assert score.error == pytest.approx(np.abs(noise).max(), rel=1e-5)
    assert score.tokens == 150


def test_more_tokens_than_there_is_text_are_as_many_as_there_are() -> None:
    assert 10_000 < verify.windows(TOKENIZER, 512, 10**7).size < 10**6


def test_a_quality_within_its_limits_passes() -> None:
    verify.require(GOOD, Limits(logit_error=0.01, perplexity=1.02, agreement=0.99))
    verify.require(GOOD, Limits())


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (replace(GOOD, max_logit_error=0.02), "max logit error 0.02, limit 0.01"),
        (replace(GOOD, perplexity=10.3), "perplexity 1.0300 times the reference's, limit 1.02"),
        (replace(GOOD, greedy_agreement=0.9), "greedy agreement 0.9000, at least 0.98"),
        (replace(GOOD, perplexity=math.nan), "perplexity nan times"),
    ],
)
def test_a_quality_beyond_a_limit_names_it(quality: Quality, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        verify.require(quality, Limits(logit_error=0.01, perplexity=1.02, agreement=0.98))


def test_an_engine_is_scored_against_the_reference(tmp_path: Path) -> None:
    checkpoint = open_folder(tiny.write_folder(tmp_path / "checkpoint", "llama"))
    architecture = describe(checkpoint.config)
    text = verify.english(checkpoint, architecture, 128)
    lesson = verify.learn(checkpoint, architecture, text, lambda: None)
    scores = {}
    for precision in (Precision.FP32, Precision.INT4):
        engine = write_engine(tmp_path / precision.value, checkpoint, architecture, precision)
        scores[precision] = verify.read(engine.session(Scored.ALL), lesson, lambda: None)
    exact, rough = scores[Precision.FP32], scores[Precision.INT4]
    assert exact.perplexity == pytest.approx(exact.reference_perplexity, rel=1e-5)
    assert exact.reference_perplexity == rough.reference_perplexity
    assert exact.max_logit_error < 1e-3 < rough.max_logit_error
    assert rough.greedy_agreement <= exact.greedy_agreement == 1.0


def test_a_serving_graph_that_strays_from_the_verified_one_is_refused(tmp_path: Path) -> None:
    engines = []
    for seed in (0, 1):
        checkpoint = open_folder(tiny.write_folder(tmp_path / f"checkpoint{seed}", seed=seed))
        architecture = describe(checkpoint.config)
        engines.append(write_engine(tmp_path / str(seed), checkpoint, architecture, Precision.FP32))
    mine, other = engines
    for count in (2, 37):
        ids = np.arange(3, 3 + count)[None]
        text = verify.Text(None, ids, ids[:, 1:])
        expected = verify.read_last(mine.session(Scored.ALL), text)
        verify.require_same(expected, mine.session(), text, max(1, count // 2), 0.05, "last.onnx")
    with pytest.raises(BuildError, match=r"last\.onnx differs by"):
        verify.require_same(expected, other.session(), text, 18, 0.05, "last.onnx")
