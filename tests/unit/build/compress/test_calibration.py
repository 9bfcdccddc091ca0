"""What passes read: windows spread over the texts, and every product's own inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from build.architecture import describe
from build.compress.calibration import observe_inputs, windows
from build.compress.products import products
from build.errors import BadInput
from build.quantise import Floats
from build.reference import decoder
from tests.models import tiny
from tests.unit.build.compress.lab import Seen, opened, prose


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return opened(tmp_path_factory.mktemp("model")).tokenizer.json


@given(st.integers(1, 40), st.integers(200, 900), st.integers(8, 60))
def test_windows_are_pieces_of_the_text_in_order(count: int, numbers: int, length: int) -> None:
    content = json.dumps(tiny.tokenizer_json())
    text = " ".join(map(str, range(100, numbers)))
    ids = Tokenizer.from_str(content).encode(text).ids
    whole = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    places = [whole.index(window) for window in windows((text,), content.encode(), length, count).tolist()]
    assert len(places) == min(count, len(whole))
    steps = np.diff(places)
    assert places[0] == 0
    assert not len(steps) or (steps.min() >= 1 and steps.max() - steps.min() <= 1)
    assert len(whole) - places[-1] <= max(1, -(-len(whole) // len(places)))


def test_windows_reach_to_the_end_of_long_texts(tokenizer: bytes) -> None:
    texts = ["the " * 500, "in " * 500]
    first, last = (set(row) for row in windows(texts, tokenizer, 64, 2).tolist())
    assert first != last


def test_every_window_begins_as_a_prompt_does(tokenizer: bytes) -> None:
    single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    start = {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}
    processor = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": start}
    content = json.loads(tokenizer) | {"post_processor": processor}
    found = windows((prose(0, 1000),), json.dumps(content).encode(), 50, 9)
    assert found.shape == (9, 50)
    assert (found[:, 0] == 1).all()
    assert (found[:, 1:] != 1).all()


def test_too_little_text_is_refused(tokenizer: bytes) -> None:
    with pytest.raises(BadInput, match=r"texts: 3 tokens, must be at least 64: give more text"):
        windows(("he", ""), tokenizer, 64, 3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_a_product_of_the_inputs_is_what_the_model_computes(family: str, tmp_path: Path) -> None:
    """The last product's inputs give the logits, and every product is seen once."""
    checkpoint = opened(tmp_path, family)
    architecture, seen = describe(checkpoint.config), dict[str, Floats]()

    def observe(name: str, values: Floats) -> None:
        assert name not in seen
        seen[name] = values

    observe_inputs(checkpoint, architecture, Seen().texts, 2, lambda: None, observe)
    for product in products(architecture):
        assert seen[product.projection.parts[0]].shape[-1] == product.projection.columns
    ids = windows(Seen().texts, checkpoint.tokenizer.json, architecture.max_positions, 2)
    expected = decoder.final_hidden(checkpoint, architecture, ids, lambda: None)
    np.testing.assert_array_equal(seen[architecture.head.parts[0]], expected)
    layer = architecture.layers[0]
    np.testing.assert_array_equal(seen[layer.input_norm.weight], seen[layer.attention.qkv.parts[0]])
