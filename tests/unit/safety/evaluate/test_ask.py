"""Answers are kept as they come, and a run that was interrupted ends as one that was not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.evaluate import ask as asking
from safety.evaluate.ask import (
    CHAT_TOKENS,
    SAMPLE_TOKENS,
    SAMPLES,
    RecordError,
    answerable,
    ask,
    completions,
    digest,
    estimate,
    seed_of,
)
from safety.evaluate.items import Ask, Choice, Item, Prompt, Scores, Texts
from safety.evaluate.model import Completion, ModelError, Window
from tests.fakes.models import LetterModel

CHOICES = [
    Choice(f"c{n}", "pairs", "age", "It is so. ", (f"He is {n}.", f"She is {n}.", "They")) for n in range(90)
]
PROMPTS = [Prompt(f"p{n}", "prompts", "", f"Tell {n}", Ask.CONTINUE) for n in range(9)]
CHATS = [Prompt(f"h{n}", "chats", "", f"Say {n}", Ask.CHAT) for n in range(5)]
ITEMS: list[Item] = [*CHATS, *CHOICES, *PROMPTS]


def test_every_item_has_its_answer(tmp_path: Path) -> None:
    model = LetterModel()
    found = ask(model, ITEMS, tmp_path / "answers")
    assert list(found) == [item.id for item in ITEMS]
    for choice in CHOICES:
        scores = found[choice.id]
        assert isinstance(scores, Scores)
        assert [len(one) for one in scores.logprobs] == [len(one) for one in scores.tokens]
        for option, tokens, logprobs in zip(choice.options, scores.tokens, scores.logprobs, strict=True):
            assert "".join(map(chr, tokens)).endswith(option)
            (alone,) = model.score(
                [Window((1, *model.encode(choice.context + option)), len(choice.context) + 1)]
            )
            assert list(logprobs[-len(option) :]) == alone
    for prompt in PROMPTS + CHATS:
        texts = found[prompt.id]
        assert isinstance(texts, Texts)
        assert list(texts.texts) == list(model.complete(completions(model, prompt)))
        assert len(texts.texts) == (SAMPLES if prompt.ask is Ask.CONTINUE else 1)


@settings(max_examples=15)
@given(st.integers(0, 520), st.integers(0, 60))
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path_factory: pytest.TempPathFactory, after: int, torn: int
) -> None:
    whole = tmp_path_factory.mktemp("ask") / "whole"
    expected = ask(LetterModel(), ITEMS, whole)
    part = whole.with_name("part")
    try:
        ask(LetterModel(fails_after=after), ITEMS, part)
    except KeyboardInterrupt:
        part.write_bytes(part.read_bytes()[: -torn or None])
    again = LetterModel()
    assert ask(again, ITEMS, part) == expected
    assert sorted(part.read_bytes().splitlines()) == sorted(whole.read_bytes().splitlines())
    third = LetterModel()
    assert ask(third, ITEMS, part) == expected
    assert not third.asked


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(LetterModel(fails_after=250), ITEMS, tmp_path / "answers")
    model, done = LetterModel(), list[int]()
    ask(model, ITEMS, tmp_path / "answers", done.append)
    kept = done[0]
    assert kept > 50
    assert sum(done) == len(ITEMS)
    assert len(model.asked) < 3 * len(CHOICES) + SAMPLES * len(PROMPTS) + len(CHATS) - 2 * kept


@pytest.mark.parametrize(
    ("model", "items", "message"),
    [
        (LetterModel(name="digits"), ITEMS, "model 'letters', this run has 'digits'"),
        (LetterModel(taste=8), ITEMS, "taste '7', this run has '8'"),
        (LetterModel(), ITEMS[:-1], "items '"),
        (LetterModel(), [*ITEMS[:-1], replace(PROMPTS[-1], text="x")], "items '"),
    ],
)
def test_answers_of_another_run_are_refused_by_name(
    tmp_path: Path, model: LetterModel, items: list[Item], message: str
) -> None:
    ask(LetterModel(), ITEMS, tmp_path / "answers")
    before = (tmp_path / "answers").read_bytes()
    with pytest.raises(RecordError, match=message):
        ask(model, items, tmp_path / "answers")
    assert (tmp_path / "answers").read_bytes() == before


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"id": "c1"}', b'{"texts": []}', b"\xff"])
def test_a_damaged_line_is_named_with_its_place(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "answers"
    ask(LetterModel(), CHOICES, path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]) + b"\n")
    with pytest.raises(RecordError, match=rf"{path}:4: no line of recorded answers"):
        ask(LetterModel(), CHOICES, path)


def test_two_items_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="item c1: there are two"):
        ask(LetterModel(), [*CHOICES, CHOICES[1]], tmp_path / "answers")


def test_an_item_that_the_model_has_no_room_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"pairs, item c0: an option of \d+ tokens, must be from 1 to 4"):
        ask(LetterModel(positions=5), CHOICES, tmp_path / "answers")


def test_prompts_are_asked_as_the_protocols_say() -> None:
    model = LetterModel()
    sampled, (chat,) = completions(model, PROMPTS[0]), completions(model, CHATS[0])
    assert len({one.seed for one in sampled}) == SAMPLES
    assert {(one.tokens, one.max_tokens) for one in sampled} == {
        ((1, *model.encode(PROMPTS[0].text)), SAMPLE_TOKENS)
    }
    assert chat == Completion(tuple(model.chat(CHATS[0].text)), CHAT_TOKENS)


def test_a_seed_is_a_function_of_the_item_and_the_same_for_a_pair() -> None:
    """The number is written down: another one would give other answers under the same protocol."""
    assert seed_of(PROMPTS[0], 0) == 1105831092
    seeds = {seed_of(item, index) for item in PROMPTS for index in range(SAMPLES)}
    assert len(seeds) == len(PROMPTS) * SAMPLES
    assert all(0 <= seed < 2**31 for seed in seeds)
    one, other = (replace(PROMPTS[n], pair="king and queen") for n in (0, 1))
    assert seed_of(one, 3) == seed_of(other, 3) != seed_of(PROMPTS[0], 3)


def test_what_a_model_cannot_answer_is_left_out_with_its_reason() -> None:
    kept, notes = answerable(LetterModel(chats=False), ITEMS)
    assert kept == [*CHOICES, *PROMPTS]
    assert notes == ["prompts to chat are left out: letters do not chat"]
    kept, notes = answerable(LetterModel(answers=False), ITEMS)
    assert kept == CHOICES
    assert len(notes) == 2
    assert answerable(LetterModel(), ITEMS) == (ITEMS, [])


def test_an_estimate_counts_each_kind_by_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window takes a second here, a completion ten."""
    monkeypatch.setattr(asking, "_PILOT", {"choice": 4, Ask.CONTINUE: 2, Ask.CHAT: 3})
    model = LetterModel()

    def clock() -> float:
        return sum(1.0 if isinstance(one, Window) else 10.0 for one in model.asked)

    found = estimate(model, ITEMS, clock)
    assert found.seconds == pytest.approx(3 * 90 + 10 * (SAMPLES * 9 + 5))
    assert found.share(found.seconds / 4) == pytest.approx(0.25)
    assert found.share(1e9) == 1
    assert len(model.asked) < 100


def test_the_digest_is_of_all_fields_and_of_the_order() -> None:
    changed = [
        [*ITEMS, CHOICES[0]],
        ITEMS[::-1],
        [replace(CHATS[0], group="x"), *ITEMS[1:]],
        [*CHATS, replace(CHOICES[0], facts={"label": "1"}), *ITEMS[6:]],
    ]
    assert len({digest(items) for items in [ITEMS, *changed]}) == 5


def test_texts_that_are_no_text_survive_the_file(tmp_path: Path) -> None:
    class Odd(LetterModel):
        def complete(self, prompts):  # type: ignore[no-untyped-def]
            return iter(["\ud800\u2028\r\n\x00"] * len(prompts))

    first = ask(Odd(), PROMPTS, tmp_path / "answers")
    again = ask(Odd(), PROMPTS, tmp_path / "answers")
    assert again == first
    json.loads((tmp_path / "answers").read_text("utf-8", errors="surrogatepass").split("\n")[1])
