"""The model as the kernels take it, from the index `kernels.json` and the weights it points into.

Weights are mapped, not read: the kernels pack those of products when they open the model, and the embedding's
rows are read where a token needs one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import ArtifactError
from engine.kernel_index import INDEX, SIZES, Json, read_index
from engine.kernels import Layer, Model, Product

WEIGHTS: Final = "model.onnx.data"
_NUMBERS: Final = ("epsilon", "head_epsilon", "scale", "crest", "embedding_scale")
_TABLES: Final = ("embedding", "cosines", "sines", "final_norm")
_NORMS: Final = ("input_norm", "query_norm", "key_norm", "ffn_norm")
_PRODUCTS: Final = ("qkv", "output", "gate", "up", "down")


def read_sizes(folder: Path) -> Model:
    """A model without its weights: enough to ask the kernels what it takes. Raises ArtifactError."""
    index = read_index(folder)
    return Model(**{name: index[name] for name in SIZES})


class KernelWeights:
    """`model` points into memory that this object keeps."""

    def __init__(self, folder: Path, positions: int | None = None) -> None:
        """Raises ArtifactError for an index or weights that cannot be read, or that do not fit together."""
        self._kept: list[NDArray[Any]] = []
        index = read_index(folder, positions)
        try:
            self._bytes = np.memmap(folder / WEIGHTS, np.uint8, "r")
            self.model = self._model(index)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(INDEX, f"cannot be used ({error!r}); build the model again") from error

    def drop_products(self) -> None:
        """Drops the joined weights: the kernels have packed them and do not read them again."""
        self._kept.clear()

    def _model(self, index: Json) -> Model:
        layers = (Layer * index["layers"])(*map(self._layer, index["layer"]))
        numbers = {name: index[name] for name in (*SIZES, *_NUMBERS)}
        tables = {name: self._floats(index[name]).ctypes.data for name in _TABLES}
        return Model(**numbers, **tables, layer=layers, head=self._product(index["head"]))

    def _layer(self, layer: Json) -> Layer:
        norms = {name: layer[name] and self._floats(layer[name]).ctypes.data for name in _NORMS}
        return Layer(**norms, **{name: self._product(layer[name]) for name in _PRODUCTS})

    def _product(self, parts: Sequence[Json]) -> Product:
        weight = self._together([self._array(part["weight"], np.dtype(np.int8)) for part in parts])
        scales = self._together([self._floats(part["scales"]) for part in parts])
        biases = [self._floats(part["bias"]) for part in parts if part["bias"]]
        bias = self._together(biases).ctypes.data if biases else None
        return Product(weight.ctypes.data, scales.ctypes.data, bias, weight.shape[1], weight.shape[0])

    def _together(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        if len(parts) == 1:
            return parts[0]
        self._kept.append(np.concatenate(parts, axis=-1))
        return self._kept[-1]

    def _floats(self, place: Json) -> NDArray[Any]:
        return self._array(place, np.dtype(np.float32))

    def _array(self, place: Json, dtype: np.dtype[Any]) -> NDArray[Any]:
        start = place["offset"]
        end = start + math.prod(place["shape"]) * dtype.itemsize
        if not 0 <= start <= end <= self._bytes.size or start % dtype.itemsize:
            raise ValueError(f"bytes {start} to {end} of {self._bytes.size}")
        return self._bytes[start:end].view(dtype).reshape(place["shape"])
