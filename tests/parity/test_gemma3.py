"""Gemma 3 270M out of its packages, in transformers and in the fp32 engine. Its terms make it opt-in: skipped
where the packages are not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from build.architecture import describe, view
from build.checkpoint import Checkpoint
from build.quantise import Ids, Precision
from build.recipe import load_recipe
from build.sources.resolve import open_source
from tests.models.engines import Engine, write_engine

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
PACKAGE = load_recipe("gemma3-270m").source.removeprefix("package:").partition("@")[0]


def _installed() -> bool:
    return any(metadata.distributions(name=PACKAGE))


pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not _installed(), reason=f"{PACKAGE} is not installed: its terms must be accepted"),
]
# The last is longer than the window of a sliding layer, 512 tokens.
PROMPTS = [
    "Q: What is the capital of France?\nA:",
    "1, 2, 4, 8, 16,",
    "Dzień dobry, nazywam się",
    "A list of fruits, one a line:\n" + "apples\nbananas\ncherries\n" * 100,
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_source(load_recipe("gemma3-270m").source)


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("gemma3") / "engine"
    architecture = describe(checkpoint.config)
    viewed = view(checkpoint)
    viewed.require_exactly(architecture.tensors())
    return write_engine(folder, viewed, architecture, Precision.FP32, capacity=1024)


@pytest.fixture(scope="module")
def oracle(checkpoint: Checkpoint) -> Any:
    """transformers' own model, with the tensors under the names and in the form that it saves them."""
    settings = {key: value for key, value in checkpoint.config.items() if value is not None}
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**settings))
    state = {name: torch.tensor(weight.read()) for name, weight in checkpoint.weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    return model.eval()


def prompts(checkpoint: Checkpoint) -> Iterator[Ids]:
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    for text in PROMPTS:
        yield np.array(tokenizer.encode(text).ids, np.int64)


def test_greedy_answers_are_equal_token_for_token(
    checkpoint: Checkpoint, engine: Engine, oracle: Any
) -> None:
    for ids in prompts(checkpoint):
        with torch.no_grad():
            expected = oracle(torch.tensor(ids[None])).logits[0].numpy()
            generated = oracle.generate(
                torch.tensor(ids[None]), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
            )[0, len(ids) :].tolist()
        np.testing.assert_allclose(engine.all_logits(ids), expected, atol=2e-2)
        assert engine.greedy(ids, 24) == generated


def test_it_knows_a_capital(checkpoint: Checkpoint, engine: Engine) -> None:
    ids = next(prompts(checkpoint))
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    assert tokenizer.decode(engine.greedy(ids, 7)) == " The capital of France is Paris."


def test_the_tokenizer_adds_the_token_that_every_text_begins_with(checkpoint: Checkpoint) -> None:
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    text = "def f(x):\n\treturn 12345 + x   # né 你好 🙂\r\n\n"
    ids = tokenizer.encode(text).ids
    assert ids[0] == tokenizer.token_to_id("<bos>")
    assert tokenizer.decode(ids) == text
