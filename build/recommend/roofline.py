"""Speed from bytes and operations: a roofline (Williams, Waterman and Patterson 2009) without overlap.

    step(rows) = weights / bandwidth                  every weight is read once for all rows
               + 2 * rows * weights / compute         a multiplication and an addition each
               + rows * positions held * bytes of one / bandwidth
               + layers * time to start a layer

A sum is at most twice the largest of its terms, which a roofline takes; it is what small batches on a CPU
showed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from build.quantise import Precision
from build.recommend.device import Device
from build.recommend.footprint import token_bytes
from build.recommend.products import Product, answering, head, reading
from build.recommend.weights import product_bytes, stored_as
from build.shape import Shape

_CHUNK = 128


@dataclass(frozen=True)
class Load:
    """Tokens of a prompt and of its answer."""

    tokens_in: int
    tokens_out: int

    @property
    def held(self) -> int:
        """Positions that a sequence's attention reads, in the middle of its answer."""
        return self.tokens_in + self.tokens_out // 2


@dataclass(frozen=True)
class Step:
    """Seconds that one step takes, by what takes them."""

    weights: float
    products: float
    caches: float
    layers: float

    @property
    def seconds(self) -> float:
        return self.weights + self.products + self.caches + self.layers


@dataclass(frozen=True)
class Speed:
    """Tokens/s of all streams together while they decode; `first_token_s` of a prompt that waits for none."""

    one: float
    full: float
    step_s: float
    first_token_s: float


def speed(shape: Shape, precision: Precision, device: Device, slots: int, load: Load) -> Speed:
    one = decode(shape, precision, device, 1, load).seconds
    full = decode(shape, precision, device, slots, load).seconds
    return Speed(1 / one, slots / full, full, first_token(shape, precision, device, load))


def whole_run(
    shape: Shape, precision: Precision, device: Device, requests: int, load: Load, beams: int = 1
) -> float:
    """Tokens/s of requests that come at once, prompts included: those are read one after another."""
    prompts = requests * first_token(shape, precision, device, load)
    step = decode(shape, precision, device, requests * beams, load).seconds
    return requests * load.tokens_out / (prompts + load.tokens_out * step)


def decode(shape: Shape, precision: Precision, device: Device, rows: int, load: Load) -> Step:
    """One token for each of the rows."""
    products = [*answering(shape), head(shape)]
    read = token_bytes(shape, device.kind) * rows * load.held
    return Step(
        weights=_read(products, precision, device),
        products=_multiplied(products, rows, precision, device),
        caches=read / device.bandwidth,
        layers=shape.layers * device.layer_s,
    )


def first_token(shape: Shape, precision: Precision, device: Device, load: Load) -> float:
    """Seconds to read the prompt, in chunks where no encoder takes it at once, and to choose a token."""
    products = reading(shape)
    layers = shape.encoder_layers or shape.layers
    chunks = 1 if shape.encoder_layers else -(-load.tokens_in // _CHUNK)
    passes = chunks * (_read(products, precision, device) + layers * device.layer_s)
    read = passes + _multiplied(products, load.tokens_in, precision, device)
    last = answering(shape) if shape.encoder_layers else []
    chosen = [*last, head(shape)]
    return read + _read(chosen, precision, device) + _multiplied(chosen, 1, precision, device)


def _read(products: Iterable[Product], precision: Precision, device: Device) -> float:
    return sum(product_bytes(part, precision, device.kind) for part in products) / device.bandwidth


def _multiplied(products: Iterable[Product], rows: int, precision: Precision, device: Device) -> float:
    return sum(2 * rows * part.weights / device.compute[stored_as(part, precision)] for part in products)
