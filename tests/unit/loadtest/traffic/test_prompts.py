"""Prompts have exactly the tokens that were planned, and share exactly what they were to share."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from loadtest.errors import TrafficError
from loadtest.traffic.profile import profile_of
from loadtest.traffic.prompts import SERIAL_TOKENS, PromptWriter, TokenizerFile, plain_words, tokens_per_word
from loadtest.traffic.schedule import Planned, schedule
from tests.paths import ROOT

BUILT = ROOT / "model_repository" / "smollm2_engine" / "1" / "tokenizer.json"


@pytest.fixture(scope="module", params=["trained", "smollm2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenizerFile:
    """One that is trained here, and the real one where it has been built."""
    if request.param == "smollm2":
        if not BUILT.exists():
            pytest.skip("smollm2 is not built")
        return TokenizerFile(BUILT)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    _trained().save(str(path))
    return TokenizerFile(path)


def _trained() -> Tokenizer:
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2500, initial_alphabet=alphabet, show_progress=False)
    words = plain_words()
    found.train_from_iterator((" ".join(words[i : i + 500]) for i in range(0, len(words), 500)), trainer)
    return found


def _planned(number: int, *entries: dict[str, Any]) -> list[Planned]:
    entries = entries or (
        {"name": "a", "prompt_tokens": {"uniform": [1, 900]}, "output_tokens": {"constant": 1}},
    )
    found = list(islice(schedule(profile_of({"mix": list(entries)})), number))
    assert len(found) == number
    return found


def _shared(number: int) -> list[Planned]:
    entry = {
        "prompt_tokens": {"uniform": [9, 300]},
        "output_tokens": {"constant": 1},
        "shared_prefix": {"share": 0.8, "tokens": 150, "groups": 2},
    }
    return _planned(number, {"name": "a", **entry}, {"name": "b", **entry})


def _alike(one: list[int], other: list[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def test_a_prompt_has_exactly_the_tokens_asked_for(tokenizer: TokenizerFile) -> None:
    writer = PromptWriter(tokenizer)
    for planned in _planned(200) + _shared(200):
        assert len(tokenizer.encode(writer.write(planned))) == planned.tokens_in


def test_a_prompt_longer_than_the_text_goes_round(tokenizer: TokenizerFile) -> None:
    entry = {"name": "a", "prompt_tokens": {"constant": 120_000}, "output_tokens": {"constant": 1}}
    (planned,) = _planned(1, entry)
    assert len(PromptWriter(tokenizer).write(planned).split()) == 120_000


def test_prompts_share_their_groups_prefix_and_nothing_more(tokenizer: TokenizerFile) -> None:
    writer, found = PromptWriter(tokenizer), _shared(150)
    written = [(planned, tokenizer.encode(writer.write(planned))) for planned in found]
    groups = {(planned.kind.name, planned.prefix_group) for planned in found}
    assert groups == {(name, group) for name in "ab" for group in (None, 0, 1)}
    for number, (one, ids) in enumerate(written):
        for other, others in written[:number]:
            together = (one.kind, one.prefix_group) == (other.kind, other.prefix_group)
            shared = min(one.prefix_tokens, other.prefix_tokens) if together else 0
            assert shared <= _alike(ids, others) < shared + SERIAL_TOKENS


def test_the_same_salt_writes_the_same_and_another_writes_others(tokenizer: TokenizerFile) -> None:
    found = _shared(50)
    one, again, other = (PromptWriter(tokenizer, salt) for salt in (1, 1, 2))
    for planned in found:
        text = one.write(planned)
        assert text == again.write(planned)
        assert _alike(tokenizer.encode(text), tokenizer.encode(other.write(planned))) < SERIAL_TOKENS


def test_an_empty_prompt_is_empty(tokenizer: TokenizerFile) -> None:
    (planned,) = _planned(1, {"name": "a", "bad": "empty"})
    assert not PromptWriter(tokenizer).write(planned)


def test_without_a_tokenizer_words_stand_for_tokens(tokenizer: TokenizerFile) -> None:
    writer = PromptWriter(tokens_per_word=1.25)
    for planned in _planned(100):
        words = len(writer.write(planned).split())
        assert words == max(1, round(planned.tokens_in / 1.25))
    short, long = ((text, len(tokenizer.encode(text)) + 30) for text in map(writer.probe, (100, 2000)))
    learned = PromptWriter(tokens_per_word=tokens_per_word(short, long))
    found = _planned(200)
    counted = sum(len(tokenizer.encode(learned.write(planned))) for planned in found)
    assert counted == pytest.approx(sum(planned.tokens_in for planned in found), rel=0.08)


def test_texts_that_teach_nothing_are_refused() -> None:
    with pytest.raises(TrafficError, match="0 tokens for 1 words more"):
        tokens_per_word(("a", 5), ("a b", 5))
    with pytest.raises(TrafficError, match="4 tokens for 0 words more"):
        tokens_per_word(("a", 5), ("a", 9))


class _Letters:
    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


class _Fours:
    """As if every four words became one token more when they meet."""

    def encode(self, text: str) -> list[int]:
        words = text.split()
        return [0] * (len(words) + len(words) // 4)


@pytest.mark.parametrize(
    ("encoder", "message"), [(_Letters(), "plain words of one token"), (_Fours(), "makes")]
)
def test_a_tokenizer_that_cannot_be_counted_with_is_refused(encoder: Any, message: str) -> None:
    with pytest.raises(TrafficError, match=f"the tokenizer: .*{message}.*estimated by words"):
        PromptWriter(encoder)


def test_a_file_that_is_no_tokenizer_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(TrafficError, match=r"tokenizer\.json: is no tokenizer\.json"):
        TokenizerFile(path)
    path.write_text("{}", "utf-8")
    with pytest.raises(TrafficError, match=r"tokenizer\.json: is no tokenizer\.json"):
        TokenizerFile(path)


def test_the_text_is_varied() -> None:
    words = plain_words()
    assert len(set(words)) > 3000
    assert sum(one == other for one, other in pairwise(words)) / len(words) < 0.01
