"""The weights of a model in either dialect: each is encoded and written once, for all graphs over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from build.architecture.parts import Norm, Projection
from build.checkpoint import Checkpoint
from build.dialects.encoding import Role, bias
from build.dialects.weight_file import WeightFile
from build.quantise import Floats, Precision


@dataclass(frozen=True)
class Store(ABC):
    """The weights that have been written, as initializers under the checkpoint's names."""

    checkpoint: Checkpoint
    precision: Precision
    file: WeightFile
    tensors: dict[str, ir.Value] = field(default_factory=dict, init=False)

    @property
    @abstractmethod
    def compute(self) -> ir.DataType:
        """The type of activations, norms and tables."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """`compute` in numpy."""
        return np.dtype(self.compute.numpy())

    def narrowed(self, _name: str, values: Floats) -> NDArray[np.generic]:
        """The values as `dtype`."""
        return values.astype(self.dtype)

    def add_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        """Writes a tensor of the checkpoint, unless it has been written."""
        if name not in self.tensors:
            self.add_values(name, self.checkpoint.weight(name, shape).read())

    def add_values(self, name: str, values: Floats) -> None:
        """Writes values that are computed from the architecture."""
        self.tensors[name] = self.file.add(name, self.narrowed(name, values))

    def add_norm(self, norm: Norm | None) -> None:
        for name, shape in norm.tensors().items() if norm else ():
            self.add_tensor(name, shape)

    @abstractmethod
    def add_projection(self, name: str, projection: Projection, role: Role) -> None:
        """Writes a product as the precision says, unless it has been written.

        One that was added as a tensor and needs no rounding is shared.
        """

    def add_bias(self, name: str, projection: Projection) -> ir.Value | None:
        offsets = bias(self.checkpoint, projection)
        return None if offsets is None else self.file.add(f"{name}_bias", self.narrowed(name, offsets))
