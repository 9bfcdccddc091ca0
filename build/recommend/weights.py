"""Bytes of a model's weights: on disk, and in memory once they are loaded."""

from __future__ import annotations

from build.dialects.encoding import BLOCK_SIZES, Role
from build.quantise import Precision
from build.recommend.device import Kind
from build.recommend.products import Product, embedding_values, head, stored, table_values
from build.shape import Shape

_HALVES = (Precision.FP16, Precision.BF16)
# ONNX Runtime's blocks have a float32 scale. TensorRT has one of 16 bits, for a row or an int4 block.
_GPU_INT4_BLOCK = 64
# tokenizer.json and the table of the tokens' bytes, for each of them: 55 + 9 bytes of SmolLM2's.
_TOKENIZER_BYTES = 64


def product_bytes(product: Product, precision: Precision, kind: Kind) -> float:
    """Of the weights and scales of all `count` products."""
    precision = stored_as(product, precision)
    if precision is Precision.FP32:
        return 4.0 * product.weights
    if precision in _HALVES:
        return 2.0 * product.weights
    bits = 4 if precision is Precision.INT4 else 8
    if kind is Kind.GPU:
        block = _GPU_INT4_BLOCK if bits == 4 else product.columns
        return product.weights * (bits / 8 + 2 / block)
    padded = -(-product.columns // BLOCK_SIZES[bits]) * BLOCK_SIZES[bits]
    return product.rows * padded * product.count * (bits / 8 + 4 / BLOCK_SIZES[bits])


def stored_as(product: Product, precision: Precision) -> Precision:
    """At int4, the products that rounding harms most stay in 8 bits."""
    if precision is Precision.INT4 and product.role is Role.SENSITIVE:
        return Precision.INT8
    return precision


def disk_bytes(shape: Shape, precision: Precision, kind: Kind) -> int:
    """Size of the engine's folder."""
    wide = table_bytes(shape, kind)
    products = [part for part in stored(shape) if part != head(shape) or not shares_head(shape, precision)]
    parts = sum(product_bytes(part, precision, kind) for part in products)
    return round(wide + parts) + _TOKENIZER_BYTES * shape.vocab_size


def loaded_bytes(shape: Shape, precision: Precision, kind: Kind) -> int:
    """In memory when every part has been used.

    ONNX Runtime packs a product's weights and drops the file's; a head that shares the embedding's is packed
    beside it, so that fp32 on a CPU holds both.
    """
    if kind is Kind.GPU:
        return disk_bytes(shape, precision, kind) - _TOKENIZER_BYTES * shape.vocab_size
    return round(
        table_bytes(shape, kind) + sum(product_bytes(part, precision, kind) for part in stored(shape))
    )


def table_bytes(shape: Shape, kind: Kind) -> int:
    return kind.wide_bytes * (embedding_values(shape) + table_values(shape))


def shares_head(shape: Shape, precision: Precision) -> bool:
    """Whether one matrix in the file is both the embedding and the head."""
    return shape.tied and precision in (Precision.FP32, *_HALVES)
