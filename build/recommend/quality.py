"""What a precision loses: measured where the engine has been built, else what is typical of it."""

from __future__ import annotations

from dataclasses import dataclass

from build.quantise import Precision

# Perplexity over that of the reference. int8 and int4: SmolLM2-135M and tiny models, rounded up (see
# docs/decisions.md); the halves and fp8: no figure of ours, what is commonly reported.
_TYPICAL = {
    Precision.FP32: 1.0,
    Precision.FP16: 1.001,
    Precision.BF16: 1.002,
    Precision.INT8: 1.01,
    Precision.FP8: 1.01,
    Precision.INT4: 1.10,
}


@dataclass(frozen=True)
class Quality:
    """`ratio`: perplexity over the reference's."""

    ratio: float
    measured: bool


def typical(precision: Precision) -> Quality:
    return Quality(_TYPICAL[precision], measured=False)
