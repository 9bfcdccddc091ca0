"""Carried blocks are those of the source; what has none gets 8 bits, and its name is noted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from build.architecture import describe
from build.compress.passes import carry, rotate
from build.compress.rounded import mean_bits
from build.errors import BadInput
from tests.models import tiny
from tests.unit.build.compress.lab import Seen, logits, opened

Q4_0, Q4_1, Q8_0 = (getattr(GGMLQuantizationType, name) for name in ("Q4_0", "Q4_1", "Q8_0"))


@pytest.mark.parametrize(("kind", "levels", "stored"), [(Q4_0, 4, 5), (Q4_1, 4, 6), (Q8_0, 8, 9)])
def test_all_blocks_of_a_source_stay(
    kind: GGMLQuantizationType, levels: int, stored: int, tmp_path: Path
) -> None:
    checkpoint, seen = tiny.opened_gguf(tiny.write_gguf(tmp_path / "m.gguf", "llama", kind)), Seen()
    carry.require(checkpoint, carry.Options())
    made = carry.run(checkpoint, carry.Options(), seen.tools())
    assert made.weights == checkpoint.weights
    assert not seen.notes
    assert (mean_bits(made).levels, mean_bits(made).stored) == (levels, stored)


def test_a_product_without_blocks_gets_8_bits_and_is_named(tmp_path: Path) -> None:
    down = "model.layers.1.mlp.down_proj.weight"
    values = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float16)
    raw = {down: (GGMLQuantizationType.F16, values.view(np.uint8))}
    path = tiny.write_gguf(tmp_path / "m.gguf", "llama", Q4_0, raw=raw)
    checkpoint, seen = tiny.opened_gguf(path), Seen()
    made = carry.run(checkpoint, carry.Options(), seen.tools())
    assert seen.is_done()
    assert seen.notes == [{"rounded to 8 bits": [down]}]
    assert {name for name, each in made.weights.items() if each is not checkpoint.weights[name]} == {down}
    read = made.weights[down].read_blocks
    assert read is not None
    assert (read().bits, read().block_size) == (8, 32)
    np.testing.assert_allclose(read().dequantise(), values, atol=float(np.abs(values).max()) / 250)
    assert np.abs(logits(made) - logits(checkpoint)).max() < 0.05
    assert carry.cost(checkpoint, carry.Options()).memory == 64 * 96 * 13


def test_a_source_without_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"carry: model\.layers\.0\.self_attn\.q_proj\.weight and all other"):
        carry.require(opened(tmp_path), carry.Options())


def test_a_rotated_source_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny.opened_gguf(tiny.write_gguf(tmp_path / "m.gguf", "llama", Q8_0))
    turned, _ = rotate.rotate(checkpoint, describe(checkpoint.config))
    with pytest.raises(BadInput, match="an earlier step has changed them: take gptq"):
        carry.require(turned, carry.Options())
