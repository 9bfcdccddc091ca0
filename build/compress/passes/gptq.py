"""Rounding of all products in blocks by GPTQ (Frantar et al. 2022, arXiv:2210.17323).

The columns that typical inputs weigh most are rounded first, whatever block they are in, and the scales of
all blocks are known before that (act order, static groups). A block's scale is the one that costs least by
the inputs' squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from build.architecture import Model, describe_model, layers
from build.checkpoint import Checkpoint
from build.compress.calibration import POSITIONS, observe_inputs, reading_cost, require_windows
from build.compress.compensation import DAMPING, Compensation, Grid, squares_of
from build.compress.products import KINDS, Product, products
from build.compress.rounded import untied, with_blocks
from build.compress.step import Cost, Kind, Tools
from build.dialects.encoding import stacked
from build.errors import BadInput
from build.quantise import Blocks, Floats, quantise, stack

KIND = Kind.QUANTISE
_BITS = (4, 8)
_BLOCKS = (16, 32, 64, 128)
# Shares of a block's largest magnitude that the outermost level may stand for.
_SHARES = np.linspace(0.7, 1.1, 17, dtype=np.float32)
_SMALLEST = np.float32(1e-30)  # of a scale: its inverse is no infinity


@dataclass(frozen=True)
class Options:
    """`eight` are the kinds of products that keep 8 bits; `windows` of 512 tokens are read."""

    bits: int = 4
    block: int = 32
    eight: tuple[str, ...] = ("head",)
    windows: int = 12
    damping: float = DAMPING

    def __post_init__(self) -> None:
        for name, known in (("bits", _BITS), ("block", _BLOCKS)):
            if getattr(self, name) not in known:
                raise BadInput(f"{name}: {getattr(self, name)}, must be one of {', '.join(map(str, known))}")
        for kind in self.eight:
            if kind not in KINDS:
                raise BadInput(f"eight: {kind!r}, must be one of {', '.join(KINDS)}")
        require_windows(self.windows)
        if not 0 < self.damping < 1:
            raise BadInput(f"damping: {self.damping}, must be between 0 and 1")


def block_grid(weight: Floats, importance: Floats, bits: int, block: int) -> Grid:
    """The grid of a weight [rows, columns] in blocks, whose scales lose least by the columns' importance.

    For each share of the largest magnitude the levels are those nearest, and the scale is refitted to them by
    least squares.
    """
    blocks, weighed = _blocked(weight, block), _blocked(importance[None], block)[0]
    half = 1 << (bits - 1)
    extremes = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)
    best, scales = np.full(blocks.shape[:2], -1, np.float32), np.zeros(blocks.shape[:2], np.float32)
    for share in _SHARES:
        tried = extremes * (share / np.float32(-half))
        inverse = np.divide(np.float32(1), tried, out=np.zeros_like(tried), where=np.abs(tried) > _SMALLEST)
        levels = np.rint(blocks * inverse).clip(-half, half - 1)
        power = np.einsum("rbc,rbc,bc->rb", levels, levels, weighed)
        shared = np.einsum("rbc,rbc,bc->rb", levels, blocks, weighed)
        fitted = np.divide(shared, power, out=np.zeros_like(power), where=power > 0)
        better = shared * fitted > best  # what the squares of the errors shrink by
        best[better], scales[better] = (shared * fitted)[better], fitted[better]
    groups = np.arange(weight.shape[1]) // block
    return Grid(np.ascontiguousarray(scales.T), groups, -half, half - 1)


def _blocked(rows: Floats, block: int) -> Floats:
    """[rows, blocks, block], the last block padded with zeros."""
    padded = np.zeros((len(rows), -(-rows.shape[1] // block), block), np.float32)
    padded.reshape(len(rows), -1)[:, : rows.shape[1]] = rows
    return padded


def round_product(weight: Floats, inputs: Floats, options: Options) -> Blocks:
    """A weight [rows, columns] that is to be multiplied with inputs like these [count, columns]."""
    squares = squares_of(inputs)
    importance = np.diag(squares) + options.damping * np.trace(squares) / len(squares)
    grid = block_grid(weight, importance.astype(np.float32), options.bits, options.block)
    levels = Compensation(squares, options.damping).levels(weight, grid)
    unsigned = np.full((len(weight), len(grid.scales) * options.block), -grid.lowest, np.uint8)
    unsigned[:, : weight.shape[1]] = levels.astype(np.int16) - grid.lowest
    blocked = unsigned.reshape(len(weight), len(grid.scales), options.block)
    return Blocks(options.bits, weight.shape[1], blocked, np.ascontiguousarray(grid.scales.T))


def in_eight(checkpoint: Checkpoint, product: Product, block: int) -> Blocks:
    """The nearest values in 8 bits; a part that the source has in such blocks keeps them."""
    parts = []
    for name in product.projection.parts:
        weight = checkpoint.weights[name]
        own = weight.read_blocks() if weight.read_blocks else None
        kept = own is not None and (own.bits, own.block_size, own.offsets) == (8, block, None)
        parts.append(own if kept and own else quantise(weight.read(), 8, block))
    return stack(parts)


def require(checkpoint: Checkpoint, options: Options) -> None:
    """Unsupported for a tied head of an encoder-decoder in 4 bits."""
    if options.bits < 8 and "head" not in options.eight:
        untied(checkpoint)


def cost(checkpoint: Checkpoint, options: Options) -> Cost:
    """Of the calibration and of the rounding, whose result is held."""
    model = describe_model(checkpoint.config)
    reading, made = reading_cost(model, options.windows), list(products(model))
    tokens = options.windows * min(POSITIONS, model.max_positions)
    widest = max(product.projection.columns for product in made)
    held = sum(product.weights for product in made) * (1 + 4 / options.block)
    rounding = sum(_operations(product, tokens) for product in made)
    return Cost(reading.operations + rounding, int(held) + reading.memory + 40 * widest**2)


def _operations(product: Product, tokens: int) -> int:
    """The inputs' squares, their inverse, the compensation, and the search of scales."""
    columns = product.projection.columns
    return product.weights * (columns + 10 * len(_SHARES)) + columns**2 * (tokens + columns)


def run(checkpoint: Checkpoint, options: Options, tools: Tools) -> Checkpoint:
    """The checkpoint with blocks for every product."""
    return with_blocks(checkpoint, rounded_products(checkpoint, options, tools))


def rounded_products(checkpoint: Checkpoint, options: Options, tools: Tools) -> list[tuple[Product, Blocks]]:
    """Every product, rounded on the inputs that it has in this checkpoint."""
    model = describe_model(checkpoint.config)
    rounder = _Rounder(checkpoint, model, options)
    advance = tools.stage("gptq", layers(model))
    observe_inputs(checkpoint, model, tools.texts, options.windows, advance, rounder.observe)
    return rounder.found


class _Rounder:
    """Rounds a product as soon as its inputs are known, so that those of one are held at a time."""

    def __init__(self, checkpoint: Checkpoint, model: Model, options: Options) -> None:
        self._checkpoint, self._options = checkpoint, options
        self._products = {product.projection.parts[0]: product for product in products(model)}
        self.found: list[tuple[Product, Blocks]] = []

    def observe(self, name: str, values: Floats) -> None:
        if (product := self._products.get(name)) is not None:
            self.found.append((product, self._rounded(product, values)))

    def _rounded(self, product: Product, values: Floats) -> Blocks:
        options = self._options
        if product.kind in options.eight:
            return in_eight(self._checkpoint, product, options.block)
        inputs = values.reshape(-1, product.projection.columns)
        return round_product(stacked(self._checkpoint, product.projection), inputs, options)
