"""Beam search and the processors against transformers' generate, over a model that is a table."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.request import Sampling, parse_early_stopping
from engine.core.tokens import Vocabulary
from engine.sampling.beams import BeamSearch
from engine.sampling.processors import Floats
from engine.sampling.sampler import TokenChooser, choose

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]

import transformers  # noqa: E402

VOCAB, CONTEXTS, PAD = 24, 97, 0


def logits_after(rows: list[list[int]], seed: int, scale: float) -> Floats:
    """What comes next depends on the last two tokens and the length."""
    table = np.random.default_rng(seed).standard_normal((CONTEXTS, VOCAB)).astype(np.float32)
    places = [(31 * row[-1] + 17 * row[-2 if len(row) > 1 else -1] + len(row)) % CONTEXTS for row in rows]
    return np.float32(scale) * table[places]


class Table(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[misc]
    """The table as a model of transformers, which has no cache and no weights."""

    config_class = transformers.GPT2Config
    main_input_name = "input_ids"

    def __init__(self, seed: int, scale: float) -> None:
        super().__init__(transformers.GPT2Config(vocab_size=VOCAB, bos_token_id=PAD, eos_token_id=PAD))
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self._seed, self._scale = seed, scale
        self.generation_config = transformers.GenerationConfig(pad_token_id=PAD, use_cache=False)

    def forward(self, input_ids: Any, **_: Any) -> Any:
        logits = logits_after(input_ids.tolist(), self._seed, self._scale)
        return transformers.modeling_outputs.CausalLMOutput(logits=torch.from_numpy(logits[:, None]))

    def prepare_inputs_for_generation(
        self, input_ids: Any, attention_mask: Any = None, **_: Any
    ) -> dict[str, Any]:
        return {"input_ids": input_ids}


def expected(seed: int, scale: float, prompt: list[int], options: dict[str, Any]) -> list[int]:
    model = Table(seed, scale)
    names = {"min_tokens": "min_new_tokens", "max_tokens": "max_new_tokens"}
    named = {names.get(name, name): value for name, value in options.items()}
    named["min_new_tokens"] = named["min_new_tokens"] or None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        ids = torch.tensor([prompt])
        found = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **named)
    answer: list[int] = found[0, len(prompt) :].tolist()
    return answer


def split(options: dict[str, Any]) -> tuple[Sampling, frozenset[int]]:
    fields = dict(options)
    eos = frozenset(fields.pop("eos_token_id"))
    fields["suppress_tokens"] = tuple(fields["suppress_tokens"] or ())
    fields["early_stopping"] = parse_early_stopping(str(fields["early_stopping"]).lower())
    return Sampling(**fields), eos


def searched(seed: int, scale: float, prompt: list[int], options: dict[str, Any]) -> list[int]:
    sampling, eos = split(options)
    search = BeamSearch(sampling, tuple(prompt), len(prompt) + sampling.max_tokens, Vocabulary(VOCAB, eos))
    rows = [prompt] * (1 if len(prompt) > 1 else sampling.num_beams)  # equal rows may come as one
    while not search.done:
        branches = search.advance(logits_after(rows, seed, scale))
        rows = [prompt] * sampling.num_beams if len(rows) == 1 else rows
        for row, (parent, _) in enumerate(branches):
            assert parent == row or branches[parent].parent == parent, "a row that is read is overwritten"
        rows = [[*rows[parent], token] for parent, token in branches]
    return list(search.best.tokens) if search.best else []


def chosen(seed: int, scale: float, prompt: list[int], options: dict[str, Any]) -> list[int]:
    sampling, eos = split(options)
    chooser = TokenChooser(sampling, prompt, len(prompt) + sampling.max_tokens, Vocabulary(VOCAB, eos))
    tokens = list(prompt)
    while len(tokens) < len(prompt) + sampling.max_tokens and not (
        tokens[len(prompt) :] and tokens[-1] in eos
    ):
        (choice,) = choose(logits_after([tokens], seed, scale), [chooser])
        assert choice
        tokens.append(choice.token)
    return tokens[len(prompt) :]


def with_room(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"min_tokens": min(options["min_tokens"], options["max_tokens"])}


processors = {
    "max_tokens": st.integers(1, 12),
    "min_tokens": st.sampled_from([0, 0, 3]),
    "eos_token_id": st.sampled_from([[1], [1, 2, 3], [4]]),
    "no_repeat_ngram_size": st.sampled_from([0, 0, 1, 2, 3]),
    "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
    "forced_bos_token_id": st.sampled_from([None, 7]),
    "forced_eos_token_id": st.sampled_from([None, 1]),
    "suppress_tokens": st.sampled_from([None, [5, 6]]),
}
beams = {
    "num_beams": st.integers(2, 6),
    "length_penalty": st.sampled_from([1.0, 0.0, 2.0, -1.0, 0.5]),
    "early_stopping": st.sampled_from([False, True, "never"]),
}
greedy = {"num_beams": st.just(1), "length_penalty": st.just(1.0), "early_stopping": st.just(False)}
cases = st.tuples(
    st.integers(0, 2**31), st.sampled_from([1.0, 3.0]), st.lists(st.integers(3, 23), min_size=1, max_size=4)
)


@settings(deadline=None, max_examples=250)
@given(cases, st.fixed_dictionaries(processors | beams).map(with_room))
def test_a_search_finds_what_generate_finds(
    case: tuple[int, float, list[int]], options: dict[str, Any]
) -> None:
    assert searched(*case, options) == expected(*case, options)


@settings(deadline=None, max_examples=100)
@given(cases, st.fixed_dictionaries(processors | greedy).map(with_room))
def test_a_greedy_answer_is_that_of_generate(
    case: tuple[int, float, list[int]], options: dict[str, Any]
) -> None:
    assert chosen(*case, options) == expected(*case, options)
