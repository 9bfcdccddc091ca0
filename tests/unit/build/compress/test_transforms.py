"""Steps that change no answer: smoothing and rotation, as the new config describes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build.compress.passes import compensate, rotate, smooth
from build.errors import BadInput, Unsupported
from tests.models import tiny
from tests.unit.build.compress.lab import Seen, logits, opened

ROTATABLE = ["llama", "mistral", "qwen2", "qwen3"]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_smoothed_model_computes_the_same(family: str, tmp_path: Path) -> None:
    checkpoint, seen = opened(tmp_path, family), Seen()
    smooth.require(checkpoint, smooth.Options())
    made = smooth.run(checkpoint, smooth.Options(), seen.tools())
    assert seen.is_done()
    assert sum(made.weights[name] is not weight for name, weight in checkpoint.weights.items()) > 8
    np.testing.assert_allclose(logits(made), logits(checkpoint), atol=2e-3)


def test_smoothing_follows_the_texts_of_the_chain(tmp_path: Path) -> None:
    checkpoint, name = opened(tmp_path), "model.layers.0.input_layernorm.weight"
    texts = [("a" * 300,), ("zq" * 300,)]
    made = [smooth.run(checkpoint, smooth.Options(), Seen(text).tools()) for text in texts]
    assert not np.allclose(made[0].weights[name].read(), made[1].weights[name].read())


@pytest.mark.parametrize("family", ROTATABLE)
@pytest.mark.parametrize("tied", [True, False])
def test_the_rotated_model_computes_the_same_with_a_head_of_its_own(
    family: str, tied: bool, tmp_path: Path
) -> None:
    checkpoint = opened(tmp_path, family, tie_word_embeddings=tied)
    rotate.require(checkpoint, rotate.Options())
    made = rotate.run(checkpoint, rotate.Options(), Seen().tools())
    assert made.config["tie_word_embeddings"] is False
    assert checkpoint.config["tie_word_embeddings"] is tied
    np.testing.assert_allclose(logits(made), logits(checkpoint), atol=2e-3)
    embedding = "model.embed_tokens.weight"
    assert not np.allclose(made.weights[embedding].read(), checkpoint.weights[embedding].read(), atol=0.1)
    again = rotate.run(made, rotate.Options(), Seen().tools())
    assert again.weights == made.weights


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        (
            "gpt2",
            r"rotate: transformer\.h\.0\.ln_1\.weight is of a norm that subtracts the mean: take smooth",
        ),
        (
            "gemma3_text",
            r"rotate: model\.layers\.0\.post_attention_layernorm\.weight scales channels within the stream",
        ),
    ],
)
def test_what_cannot_be_rotated_is_named(family: str, reason: str, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, family)
    with pytest.raises(Unsupported, match=reason):
        rotate.require(checkpoint, rotate.Options())
    with pytest.raises(Unsupported, match=reason):
        compensate.require(checkpoint, compensate.Options())


@pytest.mark.parametrize("options", [smooth.Options, compensate.Options])
def test_no_windows_are_too_few(options: type[smooth.Options] | type[compensate.Options]) -> None:
    with pytest.raises(BadInput, match="windows: 0, must be at least 1"):
        options(windows=0)
