"""Rotation and compensated rounding: what the model computes stays, and what rounding costs shrinks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.architecture import describe
from build.compress.passes.compensate import compensated, round_compensated
from build.compress.passes.rotate import Rotation, rotatable, rotate, spread
from build.dialects.inference import open_session
from build.dialects.onnxruntime.rounded import RoundedInputs
from build.dialects.onnxruntime.store import StoredRows
from build.dialects.writer import CONTRIB, Writer, tensor
from build.quantise import Floats, quantise_rows
from build.reference import decoder as reference
from tests.models import tiny
from tests.unit.build.test_families import with_outliers

ROTATABLE = [family for family in tiny.FAMILIES if family not in ("gpt2", "gemma3_text")]
IDS = np.random.default_rng(0).integers(0, len(tiny.VOCAB), (2, 24))


@given(st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_a_rotation_keeps_lengths_and_angles(size: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((4, size)).astype(np.float32)
    turned = Rotation(size).of_columns(values)
    np.testing.assert_allclose(turned @ turned.T, values @ values.T, atol=1e-3)
    np.testing.assert_array_equal(turned, Rotation(size).of_rows(np.ascontiguousarray(values.T)).T)


@given(st.integers(4, 64).map(lambda n: 8 * n))
def test_no_channel_keeps_more_than_its_share(size: int) -> None:
    one = np.zeros((1, size), np.float32)
    one[0, size // 3] = 1
    assert np.abs(Rotation(size).of_columns(one)).max() < 1.5 / np.sqrt(size)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_weighs_channels_within_the_stream_is_not_rotated(family: str, tmp_path: Path) -> None:
    checkpoint = tiny.opened(tiny.write_folder(tmp_path, family))
    assert rotatable(describe(checkpoint.config)) == (family in ROTATABLE)


@pytest.mark.parametrize("family", ROTATABLE)
def test_the_rotated_model_computes_the_same(family: str, tmp_path: Path) -> None:
    checkpoint = tiny.opened(tiny.write_folder(tmp_path, family))
    architecture = describe(checkpoint.config)
    turned, apart = rotate(checkpoint, architecture)
    logits = [
        reference.final_hidden(one, arch, IDS, lambda: None) @ reference.head_weight(one, arch).T
        for one, arch in ((checkpoint, architecture), (turned, apart))
    ]
    assert np.abs(logits[0]).max() > 0.1
    np.testing.assert_allclose(logits[1], logits[0], atol=2e-3)


@pytest.mark.parametrize("family", ROTATABLE)
def test_outliers_are_spread_over_all_channels(family: str, tmp_path: Path) -> None:
    plain = tiny.opened(tiny.write_folder(tmp_path, family))
    architecture = describe(plain.config)
    turned, apart = rotate(with_outliers(plain, architecture), architecture)
    crests: list[float] = []

    def observe(name: str, values: Floats) -> None:
        if values.shape[-1] == architecture.hidden_size and "norm" in name and "_norm.w" not in name:
            np.testing.assert_allclose(np.mean(values**2, axis=-1), 1, rtol=1e-2)
            crests.append(float(np.abs(values).max()))

    reference.final_hidden(turned, apart, IDS, lambda: None, observe)
    assert len(crests) == 2 * len(architecture.layers) + 1
    assert max(crests) < 5


@pytest.mark.parametrize("family", ROTATABLE)
def test_every_part_of_every_product_is_rounded(family: str, tmp_path: Path) -> None:
    turned, apart = rotate(*_opened(family, tmp_path))
    rows = compensated(turned, apart, lambda: None)
    wanted = {part for product in spread(apart) for part in product.parts}
    wanted |= {layer.attention.output.parts[0] for layer in apart.layers}
    wanted |= {layer.ffn.outer.parts[0] for layer in apart.layers}
    assert rows.keys() == wanted
    for name, part in rows.items():
        weight = turned.weights[name].read()
        assert np.abs(part.dequantise() - weight).max() < 0.2 * np.abs(weight).max()


def _opened(family: str, folder: Path):  # type: ignore[no-untyped-def]
    checkpoint = tiny.opened(tiny.write_folder(folder, family))
    return checkpoint, describe(checkpoint.config)


@pytest.mark.parametrize("seed", range(5))
def test_later_columns_make_up_for_earlier_ones(seed: int) -> None:
    """Inputs of few directions, as those of a model are: the product's error shrinks."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((24, 96))
    inputs = (random.standard_normal((400, len(directions))) @ directions).astype(np.float32)
    weight = random.standard_normal((64, 96)).astype(np.float32)
    nearest, found = quantise_rows(weight), round_compensated(weight, inputs)
    errors = [float(np.square(inputs @ (each.dequantise() - weight).T).mean()) for each in (nearest, found)]
    np.testing.assert_array_equal(found.scales, nearest.scales)
    assert errors[1] < errors[0]


def test_a_weight_of_zeros_stays_zero() -> None:
    inputs = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    found = round_compensated(np.zeros((3, 16), np.float32), inputs)
    assert not found.levels.any()
    assert not found.scales.any()
    assert not round_compensated(np.zeros((3, 16), np.float32), np.zeros_like(inputs)).levels.any()


@pytest.mark.exact
@pytest.mark.parametrize("spread_rows", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_the_graph_of_a_rounded_product(spread_rows: bool, biased: bool) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((24, 64)).astype(np.float32)
    offsets = random.standard_normal(24).astype(np.float32)
    hidden = random.standard_normal((2, 5, 64)).astype(np.float32)
    hidden[0, 0] = 0  # a row without a magnitude to divide by
    session = _session(weight, offsets if biased else None, spread_rows)
    (product,) = session.run(None, {"hidden": hidden})
    expected = hidden @ weight.T + (offsets if biased else 0)
    assert np.abs(product - expected).max() < 0.03 * np.abs(expected).max()
    (alone,) = session.run(None, {"hidden": hidden[1:, 2:3]})
    np.testing.assert_array_equal(alone, product[1:, 2:3])


def _session(weight: Floats, offsets: Floats | None, spread_rows: bool) -> ort.InferenceSession:
    writer, rows = Writer({"": 21, CONTRIB: 1}, 10), quantise_rows(weight)
    hidden = tensor("hidden", ir.DataType.FLOAT, ["batch", "seq", weight.shape[1]])
    stored = StoredRows(
        "product",
        writer.constant("weight", np.ascontiguousarray(rows.levels.T)),
        writer.constant("scales", rows.scales),
        None if offsets is None else writer.constant("offsets", offsets),
    )
    product = RoundedInputs(writer, hidden, "product", spread_rows).times(stored, "out")
    product.type = ir.TensorType(ir.DataType.FLOAT)
    model = ir.to_proto(writer.model("one", [hidden], [product]))
    return open_session(model.SerializeToString())
