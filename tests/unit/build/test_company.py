"""A row of a product in 4 bits has the same result, to the last bit, with any other rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from build.dialects.inference import open_session
from build.dialects.onnxruntime.company import Company
from build.dialects.writer import CONTRIB, Writer, tensor
from build.quantise import Floats, quantise

ROWS, COLUMNS = 96, 64
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((ROWS, COLUMNS)).astype(np.float32)
HIDDEN = RANDOM.standard_normal((257, COLUMNS)).astype(np.float32)


def product(bits: int, threads: int) -> ort.InferenceSession:
    writer, blocks = Writer({"": 21, CONTRIB: 1}, 10), quantise(WEIGHT, bits, 32)
    ids = tensor("ids", ir.DataType.INT64, ["batch", "seq"])
    hidden = tensor("hidden", ir.DataType.FLOAT, ["batch", "seq", COLUMNS])
    company = Company(writer, ids)
    stored = [writer.constant("weight", blocks.packed()), writer.constant("scales", blocks.scales)]
    sizes = {"N": ROWS, "K": COLUMNS, "bits": bits, "block_size": 32, "accuracy_level": 4}
    copies = writer.op("MatMulNBits", [company.copied(hidden, "copied"), *stored], "copies", sizes, CONTRIB)
    found = company.first(copies, "product")
    found.type = ir.TensorType(ir.DataType.FLOAT)
    model = ir.to_proto(writer.model("one", [ids, hidden], [found]))
    return open_session(model.SerializeToString(), threads=threads)


def times(session: ort.InferenceSession, batch: int, seq: int) -> Floats:
    """[batch, seq, ROWS] of the first rows of HIDDEN."""
    hidden = HIDDEN[: batch * seq].reshape(batch, seq, COLUMNS)
    found: Floats = session.run(None, {"ids": np.zeros((batch, seq), np.int64), "hidden": hidden})[0]
    return found


@pytest.mark.exact
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_is_the_same_alone_in_a_batch_and_in_a_prompt(bits: int, threads: int) -> None:
    session = product(bits, threads)
    company = times(session, 64, 1)
    for batch, seq in (
        (1, 1),
        (1, 2),
        (3, 1),
        (3, 5),
        (1, 127),
        (1, 128),
        (1, 129),
        (129, 1),
        (1, 257),
        (43, 3),
    ):
        found = times(session, batch, seq)
        assert found.shape == (batch, seq, ROWS)
        flat, known = found.reshape(-1, ROWS), min(batch * seq, 64)
        np.testing.assert_array_equal(flat[:known], company[:known, 0])
        last = times(session, 1, batch * seq + 1 if batch * seq < len(HIDDEN) else len(HIDDEN))
        np.testing.assert_array_equal(flat[-1], last[0, batch * seq - 1])
