"""Smoothing moves ranges between norms and products; what the model computes stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build.architecture import describe
from build.checkpoint import Checkpoint
from build.compress.passes.smooth import smooth
from build.reference import decoder as reference
from tests.models import tiny


@pytest.fixture(params=tiny.FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    return tiny.opened(tiny.write_folder(tmp_path, request.param))


def test_the_model_computes_the_same(checkpoint: Checkpoint) -> None:
    architecture = describe(checkpoint.config)
    ids = np.random.default_rng(0).integers(0, architecture.vocab_size, (2, 24))
    hidden = [
        reference.final_hidden(one, architecture, ids, lambda: None)
        for one in (checkpoint, smooth(checkpoint, architecture, lambda: None))
    ]
    assert np.abs(hidden[0] - hidden[1]).max() < 1e-4


def test_inputs_and_weights_share_the_range(checkpoint: Checkpoint) -> None:
    """After it, each channel's input peaks as high, up to one factor for all, as its column does."""
    architecture = describe(checkpoint.config)
    once = smooth(checkpoint, architecture, lambda: None)
    twice = smooth(once, architecture, lambda: None)
    for layer in architecture.layers:
        name = layer.attention.qkv.parts[0]
        assert not np.allclose(once.weights[name].read(), checkpoint.weights[name].read())
        assert np.allclose(twice.weights[name].read(), once.weights[name].read(), rtol=1e-3)
    untouched = architecture.layers[0].ffn.outer.parts[0]
    assert once.weights[untouched] is checkpoint.weights[untouched]
