"""The dimensions that recipes publish are those of the models that the adapters describe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from build.architecture import describe_model
from build.architecture.parts import Architecture, Layer, Projection
from build.architecture.seq2seq import DecoderLayer, EncoderDecoder, EncoderLayer
from build.checkpoint import Checkpoint
from build.quantise import Precision
from build.recipe import known_recipes, load_recipe
from build.recommend.memory import disk_bytes, stored
from build.shape import Positions, Shape
from build.sources.folder import open_folder
from build.sources.resolve import open_source
from tests.models import published, tiny
from tests.models.engines import write_engine

SMALL = Shape(
    parameters=2_000_000,
    layers=3,
    hidden_size=256,
    heads=4,
    kv_heads=2,
    head_dim=64,
    intermediate_size=512,
    vocab_size=263,
    max_positions=1024,
    positions=Positions.ROTARY,
    gated=True,
)


def shape_of(name: str) -> Shape:
    shape = load_recipe(name).shape
    assert shape is not None
    return shape


def projections(model: Architecture | EncoderDecoder) -> list[Projection]:
    if isinstance(model, Architecture):
        return [model.head, *_of_layers(model.layers)]
    found = [model.head, *_of_layers(model.encoder.layers), *_of_layers(model.decoder.layers)]
    for layer in model.decoder.layers:
        found += [layer.cross.query, layer.cross.key_value, layer.cross.output]
    return found


def _of_layers(layers: Sequence[Layer | EncoderLayer | DecoderLayer]) -> Iterator[Projection]:
    for layer in layers:
        yield from (layer.attention.qkv, layer.attention.output, layer.ffn.inner, layer.ffn.outer)


@pytest.mark.parametrize("name", published.FAMILIES)
def test_the_parameters_follow_from_the_dimensions(name: str) -> None:
    """BART's and Marian's adapters add a bias of the head; Marian's published count has two sine tables."""
    shape = shape_of(name)
    family = published.FAMILIES[name]
    model = describe_model(published.config(family, shape))
    counted = sum(map(math.prod, model.tensors().values()))
    if family in ("bart", "marian"):
        counted -= shape.vocab_size
    if family == "marian":
        counted += 2 * shape.max_positions * shape.hidden_size
    assert counted == shape.parameters


@pytest.mark.parametrize("name", published.FAMILIES)
def test_the_products_are_those_of_the_model(name: str) -> None:
    shape = shape_of(name)
    model = describe_model(published.config(published.FAMILIES[name], shape))
    assert sum(product.weights for product in stored(shape)) == sum(
        sum(p.rows) * p.columns for p in projections(model)
    )


def test_every_recipe_is_checked() -> None:
    """But chains: what they make has no published shape."""
    whole = {name for name in known_recipes() if not load_recipe(name).steps}
    assert whole == set(published.FAMILIES)


def test_the_shape_of_smollm2_is_that_of_its_checkpoint() -> None:
    shape, recipe = shape_of("smollm2"), load_recipe("smollm2")
    model = describe_model(open_source(recipe.source).config)
    assert isinstance(model, Architecture)
    for key in ("hidden_size", "heads", "kv_heads", "head_dim", "vocab_size", "max_positions"):
        assert getattr(model, key) == getattr(shape, key), key
    ffn = model.layers[0].ffn
    assert (len(model.layers), model.tied_head) == (shape.layers, shape.tied)
    assert (ffn.outer.columns, ffn.gated) == (shape.intermediate_size, shape.gated)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.INT4])
@pytest.mark.parametrize("tied", [True, False])
def test_the_bytes_on_disk_are_those_of_an_engine(precision: Precision, tied: bool, tmp_path: Path) -> None:
    settings = published.config("llama", SMALL) | {"tie_word_embeddings": tied}
    checkpoint: Checkpoint = open_folder(tiny.write_folder(tmp_path / "checkpoint", **settings))
    model = describe_model(checkpoint.config)
    assert isinstance(model, Architecture)
    engine = write_engine(tmp_path / "engine", checkpoint, model, precision)
    written = (engine.folder / "weights").stat().st_size
    shape = Shape(**(vars(SMALL) | {"tied": tied}))
    estimate = disk_bytes(shape, precision, False) - 64 * shape.vocab_size
    pages = 4096 * 40  # every tensor begins on a page
    assert estimate <= written <= estimate + pages
