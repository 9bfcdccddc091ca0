"""The passes by the names that recipes give them."""

from __future__ import annotations

from build.compress.step import Pass

PASSES: dict[str, Pass] = {}
