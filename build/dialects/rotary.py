"""Rotary tables, which the graphs of both dialects look positions up in."""

from __future__ import annotations

import numpy as np

from build.architecture.parts import Architecture
from build.quantise import Floats


def rotations(architecture: Architecture) -> list[tuple[float, ...]]:
    """The different rotary frequencies of the layers, in order of appearance."""
    found = [layer.attention.rotary for layer in architecture.layers if layer.attention.rotary]
    return list(dict.fromkeys(found))


def rotary_tables(frequencies: tuple[float, ...], positions: int) -> tuple[Floats, Floats]:
    """Cosines and sines [positions, head_dim / 2]."""
    angles = np.outer(np.arange(positions, dtype=np.float64), np.asarray(frequencies, np.float64))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
