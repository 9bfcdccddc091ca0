"""The set of our own: how many, how alike, and that no item is there twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

from safety.evaluate import own
from safety.evaluate.items import Ask, Choice, Item, Prompt

ITEMS = own.items()
GROUPS = {
    "age",
    "disability",
    "gender",
    "nationality",
    "appearance",
    "race",
    "religion",
    "orientation",
    "socioeconomic",
}


def of(name: str) -> list[Item]:
    return [item for item in ITEMS if item.set == name]


def choices(name: str) -> list[Choice]:
    return [item for item in of(name) if isinstance(item, Choice)]


def prompts(name: str) -> list[Prompt]:
    return [item for item in of(name) if isinstance(item, Prompt)]


def differing(first: str, second: str) -> list[tuple[str, str]]:
    """The words that differ, one by one."""
    pairs = zip(first.split(), second.split(), strict=True)
    return [(one, other) for one, other in pairs if one != other]


def test_there_are_as_many_as_promised() -> None:
    counts = Counter(item.set for item in ITEMS)
    assert counts[own.PAIRS] == 200
    assert counts[own.FACTS] == 100
    assert counts[own.CONTINUATIONS] == 100
    assert counts[own.HARMFUL] == counts[own.BENIGN] == 60
    assert len({item.pair for item in prompts(own.COUNTERFACTUALS)}) == 40
    assert sum(counts.values()) == len(ITEMS)


def test_nothing_is_there_twice() -> None:
    texts = [item.context + item.options[0] for item in ITEMS if isinstance(item, Choice)]
    texts += [item.text for item in ITEMS if isinstance(item, Prompt)]
    assert not [text for text, count in Counter(texts).items() if count > 1]
    assert len({item.id for item in ITEMS}) == len(ITEMS)


def test_pairs_cover_nine_groups_with_twenty_each_or_more() -> None:
    counts = Counter(item.category for item in of(own.PAIRS))
    assert counts.keys() == GROUPS
    assert min(counts.values()) >= 20


def test_the_sentences_of_a_pair_differ_in_the_word_of_the_group_alone() -> None:
    for item in choices(own.PAIRS):
        more, less = item.options
        assert differing(more, less) == [(item.facts["more"], item.facts["less"])], item.id
        assert item.facts["stereotype"]


def test_every_word_is_on_both_sides_equally_often() -> None:
    """So a model that finds one word more frequent, and no more, prefers the stereotype in half of them."""
    more, less = (
        Counter((i.category, i.facts[side]) for i in choices(own.PAIRS)) for side in ("more", "less")
    )
    assert more == less


def test_the_ends_of_a_fact_are_as_long_and_fit_the_same_article() -> None:
    for item in choices(own.FACTS):
        true, false = item.options
        assert abs(len(true) - len(false)) <= 4, item.id
        assert true[0] == false[0] == " "
        assert item.facts["label"] == "0"
        if item.context.endswith((" a", " an")):
            assert {end[1] in "aeiou" for end in item.options} == {item.context.endswith(" an")}, item.id
    assert set(Counter(item.category for item in of(own.FACTS)).values()) == {10}


def test_half_of_the_beginnings_are_neutral_and_none_ends_a_sentence() -> None:
    found = prompts(own.CONTINUATIONS)
    assert Counter(item.category for item in found) == {"neutral": 50, "provoking": 50}
    assert all(item.ask is Ask.CONTINUE and item.text[-1] not in ".!?" for item in found)


def test_each_harmful_request_has_a_look_alike() -> None:
    """They share words beside those that every request has."""
    common = {"how", "do", "i", "a", "the", "to", "can", "my", "me", "write", "that", "of", "for", "in", "is"}
    for harmful, benign in zip(prompts(own.HARMFUL), prompts(own.BENIGN), strict=True):
        assert harmful.id.split("/")[1:] == benign.id.split("/")[1:]
        first, second = (set(item.text.lower().rstrip(".?").split()) for item in (harmful, benign))
        starts = {word[:5] for word in first - common} & {word[:5] for word in second - common}
        assert starts, (harmful.text, benign.text)
        assert harmful.ask is benign.ask is Ask.CHAT


def test_counterfactual_prompts_differ_in_the_word_of_a_group_alone() -> None:
    families: dict[str, list[Prompt]] = defaultdict(list)
    for item in prompts(own.COUNTERFACTUALS):
        families[item.pair].append(item)
    for family in families.values():
        assert len(family) >= 3
        for one, other in combinations(family, 2):
            assert one.group != other.group
            assert one.text.replace(one.group, "{}") == other.text.replace(other.group, "{}")
        assert not [item.text for item in family if f"A {item.group}"[2] in "aeiouAEIOU"]
