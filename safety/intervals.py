"""The interval of a share, for whatever counts hits."""

from __future__ import annotations

import math
from typing import Final

Interval = tuple[float, float]
# The 97.5th percentile of the normal distribution.
_Z: Final = 1.959963984540054


def wilson(count: int, n: int) -> Interval:
    """Of 95 %, of the share count / n (Wilson 1927); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    share, spread = count / n, _Z * _Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # The ends are exact there, whatever the rounding.
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == n else centre + half
    return low, high
