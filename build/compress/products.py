"""The products of a model, by what they are for; an engine stores each as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from build.architecture import Model
from build.architecture.parts import Architecture, Attention, FeedForward, Projection
from build.architecture.seq2seq import AnyLayer, EncoderLayer

KINDS = ("qkv", "output", "up", "down", "cross", "head")


@dataclass(frozen=True)
class Product:
    """`name` is unique in the model; the parts of `qkv` and of `up` (with the gate) share their inputs."""

    kind: str
    name: str
    projection: Projection

    @property
    def weights(self) -> int:
        return sum(self.projection.rows) * self.projection.columns


def products(model: Model) -> Iterator[Product]:
    """In the order of the model; the head is the last."""
    if isinstance(model, Architecture):
        for index, layer in enumerate(model.layers):
            yield from _of_layer(f"layer {index}", layer.attention, layer.ffn)
    else:
        stacks: list[tuple[str, tuple[AnyLayer, ...]]] = [
            ("encoder", model.encoder.layers),
            ("decoder", model.decoder.layers),
        ]
        for side, layers in stacks:
            for index, each in enumerate(layers):
                yield from _of_layer(f"{side} layer {index}", each.attention, each.ffn)
                if not isinstance(each, EncoderLayer):
                    cross = (each.cross.query, each.cross.key_value, each.cross.output)
                    for what, projection in zip(("query", "key and value", "output"), cross, strict=True):
                        yield Product("cross", f"{side} layer {index} cross {what}", projection)
    yield Product("head", "head", model.head)


def _of_layer(where: str, attention: Attention, ffn: FeedForward) -> Iterator[Product]:
    made = {"qkv": attention.qkv, "output": attention.output, "up": ffn.inner, "down": ffn.outer}
    for kind, projection in made.items():
        yield Product(kind, f"{where} {kind}", projection)
