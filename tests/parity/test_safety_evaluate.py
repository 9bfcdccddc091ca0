"""Log-likelihoods of our windows in the numpy reference, and lm-eval's formulas over transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from build.architecture import describe
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.recipe import load_recipe
from build.reference import decoder
from build.sources.resolve import open_source
from safety.evaluate import own
from safety.evaluate.items import Choice
from safety.evaluate.likelihood import preference, scores, total, windows
from safety.evaluate.model import Completion, Window
from tests.models.oracle import llama_oracle

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.slow]


class Reference:
    """The reference as a model. Windows are filled up on the right, which no position before it sees."""

    name = "reference"
    facts: Mapping[str, str] = {}

    def __init__(self, checkpoint: Checkpoint) -> None:
        architecture = describe(checkpoint.config)
        assert isinstance(architecture, Architecture)
        self._checkpoint, self._architecture = checkpoint, architecture
        self._tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
        self._head = decoder.head_weight(checkpoint, architecture)
        self.positions = architecture.max_positions
        prefix = self._tokenizer.token_to_id(checkpoint.tokenizer.special["bos_token"])
        assert prefix is not None
        self.prefix = prefix

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def chat(self, message: str) -> list[int]:
        raise NotImplementedError

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:
        raise NotImplementedError

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        ids = np.zeros((len(windows), max(len(window.tokens) for window in windows)), np.int64)
        for row, window in zip(ids, windows, strict=True):
            row[: len(window.tokens)] = window.tokens
        hidden = decoder.final_hidden(self._checkpoint, self._architecture, ids, lambda: None)
        for row, window in zip(hidden, windows, strict=True):
            logits = (row[window.start - 1 : len(window.tokens) - 1] @ self._head.T).astype(np.float64)
            top = logits.max(axis=-1, keepdims=True)
            norm = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
            wanted = np.array(window.tokens[window.start :])
            yield (logits[np.arange(len(wanted)), wanted] - norm).tolist()


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_source(load_recipe("smollm2").source)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="module")
def oracle(checkpoint: Checkpoint) -> Any:
    return llama_oracle(checkpoint)


PAIRS = [item for item in own.items() if isinstance(item, Choice) and item.set == own.PAIRS][::25]
FACTS = [item for item in own.items() if isinstance(item, Choice) and item.set == own.FACTS][::25]


@pytest.fixture(scope="module")
def sums(reference: Reference) -> Mapping[str, list[float]]:
    """Ours, by item: all windows in one pass, which reads the weights once."""
    asked = {item.id: windows(reference, item) for item in (*PAIRS, *FACTS)}
    found = reference.score([window for each in asked.values() for window in each])
    return {name: total(scores(each, [next(found) for _ in each])) for name, each in asked.items()}


def loglikelihood(oracle: Any, prefix: int, context: list[int], continuation: list[int]) -> float:
    """As lm-eval has it: the log-softmax of the logits before each token of the continuation, in fp32."""
    before = context or [prefix]
    with torch.no_grad():
        logits = oracle(torch.tensor([before + continuation])[:, :-1]).logits
    chosen = torch.nn.functional.log_softmax(logits, dim=-1)[0, -len(continuation) :]
    return float(torch.gather(chosen, 1, torch.tensor(continuation)[:, None]).sum())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)
def test_a_pair_has_the_figures_of_crows_pairs_in_lm_eval(
    reference: Reference, oracle: Any, sums: Mapping[str, list[float]], pair: Choice
) -> None:
    """likelihood_diff and pct_stereotype of its task. A sum of some 80 nats has 5 exact digits in fp32."""
    ids = [reference.encode(option) for option in pair.options]
    first, second = (loglikelihood(oracle, reference.prefix, [], each) for each in ids)
    ours = sums[pair.id]
    assert ours == pytest.approx([first, second], rel=5e-6)
    per_token = [value / len(each) for value, each in zip(ours, ids, strict=True)]
    assert per_token == pytest.approx([first / len(ids[0]), second / len(ids[1])], abs=5e-5)
    assert abs(ours[0] - ours[1]) == pytest.approx(abs(first - second), abs=1e-4)
    assert (ours[0] > ours[1]) == (first > second)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_a_fact_has_the_figures_of_a_multiple_choice_in_lm_eval(
    reference: Reference, oracle: Any, sums: Mapping[str, list[float]], fact: Choice
) -> None:
    context = reference.encode(fact.context)
    wholes = [reference.encode(fact.context + option) for option in fact.options]
    theirs = [loglikelihood(oracle, reference.prefix, context, whole[len(context) :]) for whole in wholes]
    assert sums[fact.id] == pytest.approx(theirs, abs=5e-5)
    assert preference(sums[fact.id]).index == int(np.argmax(theirs))
