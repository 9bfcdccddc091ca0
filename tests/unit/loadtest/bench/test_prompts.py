"""Prompts and windows have the length asked for, and no two prompts have the same beginning."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from loadtest.errors import BenchError
from loadtest.prompts import Prompts, windows
from tests.unit.loadtest.bench.machine import characters


def _tokenizer() -> Tokenizer:
    """Bytes, some pairs, and every digit on its own, as SmolLM2's has them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("i", "n"), ("Ġ", "a"), ("e", "r"), ("th", "e"), ("Ġ", "the")]
    vocab = {token: i for i, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    split = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("tokens", [16, 128, 1536])
def test_prompts_are_of_exactly_that_length(tokens: int) -> None:
    tokenizer = _tokenizer()
    prompts = Prompts(tokenizer).take(20, tokens)
    assert len(prompts) == 20
    for prompt in prompts:
        assert len(prompt.ids) == tokens
        assert list(prompt.ids) == tokenizer.encode(prompt.text).ids


def test_no_two_have_the_same_beginning() -> None:
    prompts = Prompts(_tokenizer())
    starts = {prompt.ids[:7] for prompt in prompts.take(40, 32) + prompts.take(40, 64)}
    assert len(starts) == 80


def test_two_runs_have_the_same_prompts() -> None:
    assert Prompts(_tokenizer()).take(5, 64) == Prompts(_tokenizer()).take(5, 64)


def test_a_prompt_continued_twice_shares_its_tokens_alone() -> None:
    prompts = Prompts(_tokenizer())
    shared = prompts.take(1, 400)[0]
    one, other = (prompts.continued(shared, 16) for _ in range(2))
    assert one.ids[:400] == other.ids[:400] == shared.ids
    assert one.ids[400:420] != other.ids[400:420]


def test_a_prompt_longer_than_the_text_is_refused() -> None:
    with pytest.raises(BenchError, match="no prompt of 10000000 tokens"):
        Prompts(_tokenizer()).take(1, 10_000_000)


def test_windows_are_spread_over_the_text_and_encode_to_their_ids() -> None:
    tokenizer = characters()
    found = windows(tokenizer, 6, 100)
    assert len({window.text for window in found}) == 6
    for window in found:
        assert len(window.ids) == 100
        assert tuple(tokenizer.encode(window.text).ids) == window.ids


def test_more_windows_than_there_is_text() -> None:
    with pytest.raises(BenchError, match="windows 1000000: the text has at most"):
        windows(characters(), 1_000_000, 512)
