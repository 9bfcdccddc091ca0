"""Checkpoints with random weights, and what a build takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bench.checkpoint import byte_tokenizer
from loadtest.bench.engines import Engines, run_measured
from loadtest.bench.plan import Load, Model, RandomWeights
from loadtest.errors import BenchError

TOKENIZER = byte_tokenizer(600)


@given(st.text(st.characters(codec="ascii"), max_size=300))
def test_a_byte_is_a_token(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text


def test_every_id_of_the_model_has_a_text() -> None:
    assert TOKENIZER.get_vocab_size() == 600
    assert TOKENIZER.decode([599]).isalpha()


def test_a_measured_process_tells_its_memory_and_its_end() -> None:
    held = 200 * 10**6
    ours = bytearray(b"x") * (4 * held)
    code, peak = run_measured([sys.executable, "-c", f"x = b'x' * {held}; raise SystemExit(3)"])
    assert code == 3
    assert held < peak < 2 * held
    assert len(ours) > 2 * held  # what started it has more


def test_a_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    indivisible = RandomWeights("gpt2", {"n_layer": 1, "n_embd": 64, "n_head": 7, "vocab_size": 300}, {})
    with pytest.raises(BenchError, match=r"(?s)of odd failed with code 1; .*checkpoint\.log.*heads"):
        Engines(tmp_path).build(Model("odd", 16, (Load(1),), ("build",), indivisible))
    assert not list(tmp_path.glob("odd-*"))
