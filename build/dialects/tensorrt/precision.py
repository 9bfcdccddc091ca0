"""What this dialect computes in, and what its products are stored in."""

from __future__ import annotations

import onnx_ir as ir

from build.dialects.encoding import Role
from build.dialects.tensorrt.rounding import Kind
from build.errors import BadInput
from build.quantise import Precision

PRECISIONS = (Precision.FP16, Precision.BF16, Precision.INT8, Precision.INT4, Precision.FP8)
# Their activations leave the range of float16, so that rounded weights are beside bfloat16.
_WIDE_FAMILIES = ("t5", "mt5", "gemma3", "gemma3_text")
_COMPUTE = {
    Precision.FP32: ir.DataType.FLOAT,
    Precision.FP16: ir.DataType.FLOAT16,
    Precision.BF16: ir.DataType.BFLOAT16,
}


def require_precision(precision: Precision) -> None:
    """BadInput for what TensorRT has no use for."""
    if precision not in PRECISIONS:
        known = ", ".join(each.value for each in PRECISIONS)
        raise BadInput(f"precision {precision.value}: engine tensorrt takes {known}")


def compute_type(precision: Precision, family: str) -> ir.DataType:
    """Of activations, norms, tables, caches and scales."""
    rounded = ir.DataType.BFLOAT16 if family in _WIDE_FAMILIES else ir.DataType.FLOAT16
    return _COMPUTE.get(precision, rounded)


def stored_kind(precision: Precision, role: Role, blocks_fit: bool) -> Kind | None:
    """None is dense. At int4, 8 bits are kept where rounding costs most, and where blocks do not fit."""
    if precision is Precision.INT4:
        return Kind.INT4 if role is Role.ROBUST and blocks_fit else Kind.INT8
    return {Precision.INT8: Kind.INT8, Precision.FP8: Kind.FP8}.get(precision)
