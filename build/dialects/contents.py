"""What the graphs of a model hold: its weights, and the tables that follow from it.

Either dialect has a store of its own that says how a tensor and a product are written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from build.architecture.parts import Architecture, Layer, Norm, Projection
from build.checkpoint import Checkpoint
from build.dialects.encoding import Role
from build.dialects.rotary import rotary_tables, rotations


class Store(Protocol):
    """Writes every tensor and every product once, under the name it is given."""

    @property
    def checkpoint(self) -> Checkpoint: ...

    def has(self, name: str) -> bool:
        """Whether a tensor of this name has been written."""

    def add_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        """The checkpoint's tensor as it is."""

    def add_values(self, name: str, values: NDArray[np.float32]) -> None:
        """Values that follow from the architecture."""

    def add_norm(self, norm: Norm | None) -> None: ...

    def add_projection(self, name: str, projection: Projection, role: Role) -> None: ...


def store_decoder(store: Store, architecture: Architecture, advance: Callable[[], None]) -> None:
    """Everything the decoder's graph needs; `advance` is called after each layer."""
    hidden = architecture.hidden_size
    store.add_tensor(architecture.embedding, (architecture.vocab_size, hidden))
    if architecture.positions:
        store.add_tensor(architecture.positions.table, (architecture.positions.rows, hidden))
    for index, layer in enumerate(architecture.layers):
        _store_layer(store, f"layer_{index}", layer)
        advance()
    for number, frequencies in enumerate(rotations(architecture)):
        cosines, sines = rotary_tables(frequencies, architecture.max_positions)
        store.add_values(f"cosines_{number}", cosines)
        store.add_values(f"sines_{number}", sines)
    store.add_norm(architecture.final_norm)
    store.add_projection("head", architecture.head, Role.SENSITIVE)


def _store_layer(store: Store, name: str, layer: Layer) -> None:
    attention, ffn = layer.attention, layer.ffn
    for norm in (*layer.norms(), attention.q_norm, attention.k_norm):
        store.add_norm(norm)
    store.add_projection(f"{name}_qkv", attention.qkv, Role.SENSITIVE)
    store.add_projection(f"{name}_output", attention.output, Role.ROBUST)
    store.add_projection(f"{name}_{'gate_up' if ffn.gated else 'up'}", ffn.inner, Role.ROBUST)
    store.add_projection(f"{name}_down", ffn.outer, Role.SENSITIVE)
