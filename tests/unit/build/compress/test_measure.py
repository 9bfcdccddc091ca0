"""What a model lost: against formulas written straight down, and with another vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from build.architecture import describe
from build.checkpoint import Checkpoint, Weight
from build.compress.measure import Reading, ReferenceReader, Vocabulary, compare, passages
from build.compress.passes import prune_vocabulary
from build.compress.step import Tools
from build.reference import decoder
from tests.models import tiny

TEXTS = ["the inn in the thin tin hen", "he thinks, then he sings\nin the inn"]


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    return tiny.opened(tiny.write_folder(tmp_path / "model", "llama"))


def shaken(source: Checkpoint) -> Checkpoint:
    name = "model.layers.1.mlp.down_proj.weight"
    weight = source.weights[name]
    noise = np.random.default_rng(0).standard_normal(weight.shape).astype(np.float32) * 0.05
    return replace(
        source, weights={**source.weights, name: Weight(weight.shape, lambda: weight.read() + noise)}
    )


def test_a_model_loses_nothing_against_itself(source: Checkpoint) -> None:
    loss = compare(ReferenceReader(source), ReferenceReader(source), TEXTS)
    assert (loss.ratio, loss.error, loss.kl, loss.agreement, loss.outside) == (1, 0, 0, 1, 0)


def test_the_figures_are_those_of_the_formulas(source: Checkpoint) -> None:
    other, changed = ReferenceReader(source), shaken(source)
    found = compare(other, ReferenceReader(changed), TEXTS)
    losses, divergences, same = [], [], []
    for text in TEXTS:
        ids = np.array([other.vocabulary.encode(text)])
        logs = []
        for each in (source, changed):
            architecture = describe(each.config)
            hidden = decoder.final_hidden(each, architecture, ids, lambda: None)[0].astype(np.float64)
            logits = hidden @ decoder.head_weight(each, architecture).T.astype(np.float64)
            logs.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
        labels = ids[0, 1:]
        at = np.arange(len(labels))
        losses.append([-each[at, labels] for each in logs])
        divergences.append((np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1))
        same.append(logs[0].argmax(axis=1) == logs[1].argmax(axis=1))
    before, after = (np.concatenate([pair[side] for pair in losses]) for side in (0, 1))
    assert found.tokens == len(after)
    assert found.perplexity == pytest.approx(math.exp(after.mean()), rel=1e-4)
    assert found.ratio == pytest.approx(math.exp((after - before).mean()), rel=1e-4)
    assert found.error == pytest.approx(
        found.ratio * (after - before).std() / math.sqrt(len(after)), rel=1e-3
    )
    assert found.kl == pytest.approx(np.concatenate(divergences).mean(), rel=1e-3)
    assert found.agreement == pytest.approx(np.concatenate(same).mean())


def test_a_smaller_vocabulary_is_compared_at_the_places_that_both_have(source: Checkpoint) -> None:
    tools = Tools(("the the the",), 0, lambda _name, _steps: lambda: None)
    smaller = prune_vocabulary.run(source, prune_vocabulary.Options(keep=len(tiny.VOCAB) - 1), tools)
    other, reader = ReferenceReader(source), ReferenceReader(smaller)
    found = compare(other, reader, TEXTS)
    # A token that is missing is two others: both models are compared where it ends, by the same text.
    assert reader.vocabulary.size == len(tiny.VOCAB) - 1
    assert found.tokens == sum(len(other.vocabulary.encode(text)) - 1 for text in TEXTS)
    assert 0 < found.outside < 0.1
    assert found.ratio > 1


@dataclass
class Coin:
    """A model that gives every token the same probability, but for one."""

    vocabulary: Vocabulary
    favoured: float

    def read(self, passages: Sequence[Sequence[int]]) -> Iterator[Reading]:
        logits = np.zeros(self.vocabulary.size, np.float32)
        logits[0] = self.favoured
        for ids in passages:
            yield Reading(ids, lambda at: np.tile(logits, (len(at), 1)))


def test_two_known_distributions_have_their_known_divergence(source: Checkpoint) -> None:
    vocabulary = ReferenceReader(source).vocabulary
    even, uneven = Coin(vocabulary, 0.0), Coin(vocabulary, 2.0)
    size = vocabulary.size
    p = np.full(size, 1 / size)
    q = np.exp(np.eye(size)[0] * 2)
    q /= q.sum()
    assert compare(even, uneven, TEXTS).kl == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-5)


def test_passages_begin_at_lines_and_are_spread_over_the_text(source: Checkpoint) -> None:
    vocabulary = ReferenceReader(source).vocabulary
    text = "\n".join(f"line {number} of the text" for number in range(100))
    found = passages(vocabulary, text, 4, 30)
    assert len(found) == 4
    assert all(each.startswith("line ") for each in found)
    assert all(len(vocabulary.encode(each)) <= 31 for each in found)
    starts = [text.index(each) for each in found]
    assert starts == sorted(starts)
    assert starts[-1] > len(text) / 2
