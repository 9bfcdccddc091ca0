"""A checkpoint's generation settings: what the manifest has of them, and what a server makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.checkpoint import Checkpoint
from build.errors import BadInput
from build.generation import LIMITS, generation, unserved
from build.sources.folder import open_folder
from engine.core import contract, request
from tests.models import tiny

WORDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "num_beams", "length_penalty")
NUMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**33), 2**33),
    st.floats(),
    st.sampled_from([-1, 0, 0.0, 1, 50.0]),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_folder(tiny.write_folder(tmp_path_factory.mktemp("llama"), "llama"))


def told(checkpoint: Checkpoint, **settings: Any) -> dict[str, Any]:
    return generation(replace(checkpoint, generation={"eos_token_id": 2, **settings}))


def test_the_end_of_a_sequence_is_no_bad_word(checkpoint: Checkpoint) -> None:
    settings = {
        "eos_token_id": [2, 7],
        "bad_words_ids": [[5], [2], [8, 9], [7]],
        "suppress_tokens": [4, -1, 999],
    }
    assert told(checkpoint, **settings)["suppress_tokens"] == [4, 5]


@given(
    st.fixed_dictionaries(
        {"do_sample": st.sampled_from([True, True, False, None])},
        optional=dict.fromkeys((*WORDS, "no_repeat_ngram_size", "max_new_tokens", "min_new_tokens"), NUMBERS),
    )
)
def test_what_is_built_is_served_and_all_else_is_refused(
    checkpoint: Checkpoint, settings: dict[str, Any]
) -> None:
    """A request without any input of its own: nobody is refused for what he has not sent."""
    try:
        found = told(checkpoint, **settings)
    except BadInput:
        return
    defaults = {name: value for name, value in found.items() if value is not None and name != "eos_token_ids"}
    request.sampling_from({}, {"max_tokens": 256, **defaults})


@pytest.mark.parametrize("word", [*WORDS, "no_repeat_ngram_size"])
def test_the_limits_are_those_of_a_request(word: str) -> None:
    """Where ours are wider, the value turns something off."""
    ours, theirs = LIMITS[word], contract.LIMITS[word]
    assert ours[0] <= theirs.low
    assert ours[1] >= theirs.high
    if word not in ("top_p", "top_k", "no_repeat_ngram_size"):
        assert ours == (theirs.low, theirs.high)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": -1}, {"top_k": 0, "temperature": 1.0}),
        ({"top_k": 0}, {"top_k": 0}),
        ({"top_k": 50.0}, {"top_k": 50}),
        ({}, {"top_k": 50, "top_p": 1.0, "temperature": 1.0}),
        ({"top_p": 0}, {"temperature": 0.0, "top_p": 1.0}),
        ({"top_p": 2}, {"top_p": 1.0}),
        ({"temperature": 0.0, "top_k": 20}, {"temperature": 0.0, "top_k": 0}),
        ({"no_repeat_ngram_size": -1}, {"no_repeat_ngram_size": 0}),
        ({"min_new_tokens": -1}, {"min_tokens": 0}),
        ({"forced_eos_token_id": [2]}, {"forced_eos_token_id": 2}),
        ({"eos_token_id": [2, 0, 100000]}, {"eos_token_ids": [2, 0]}),
    ],
)
def test_spellings_of_off_are_read_as_off(
    checkpoint: Checkpoint, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = told(checkpoint, do_sample=True, **settings)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"repetition_penalty": 0}, r"repetition_penalty: 0, must be a number in \[0\.001, 10\]"),
        ({"max_new_tokens": 0}, r"max_new_tokens: 0, must leave at least 1 new token"),
        ({"temperature": -1, "do_sample": True}, r"temperature: -1, must be a number in \[0, 100\]"),
        ({"top_p": -0.1, "do_sample": True}, r"top_p: -0\.1, must be a number in \[0, "),
        ({"top_k": 2.5, "do_sample": True}, r"top_k: 2\.5, must be a whole number"),
        ({"num_beams": 0}, r"num_beams: 0, must be a whole number in \[1, 64\]"),
        ({"length_penalty": float("nan")}, r"length_penalty: nan, must be a number in \[-5, 5\]"),
        ({"forced_bos_token_id": 263}, r"forced_bos_token_id: 263, must be a token's id in \[0, 262\]"),
        ({"eos_token_id": True}, r"eos_token_id: True, must be ids"),
    ],
)
def test_generation_defaults_that_no_request_could_have_are_refused_at_build_time(
    checkpoint: Checkpoint, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=rf"^generation_config\.json: {said}"):
        told(checkpoint, **settings)


def test_a_length_that_leaves_no_new_token_is_refused(tmp_path: Path) -> None:
    """transformers' max_length of an encoder-decoder counts the token that its decoder begins with."""
    config = {"model_type": "t5", "is_encoder_decoder": True, "vocab_size": 9}
    seq2seq = replace(
        open_folder(tiny.write_folder(tmp_path, "llama")), config=config, generation={"max_length": 1}
    )
    with pytest.raises(BadInput, match="max_length: 1, must leave at least 1 new token"):
        generation(seq2seq)
    assert generation(replace(seq2seq, generation={"max_length": 2}))["max_tokens"] == 1


def test_settings_that_no_engine_supports_are_named(checkpoint: Checkpoint) -> None:
    quiet = {"typical_p": 1.0, "renormalize_logits": False, "guidance_scale": None, "bad_words_ids": [[1]]}
    assert unserved(replace(checkpoint, generation=quiet)) == []
    loud = {"typical_p": 0.9, "stop_strings": ["x"], "bad_words_ids": [[1, 2]]}
    names = ["typical_p 0.9", "stop_strings ['x']", "bad_words_ids of several tokens"]
    assert unserved(replace(checkpoint, generation=loud)) == names
