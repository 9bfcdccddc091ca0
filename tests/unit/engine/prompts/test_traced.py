"""Traced text against a model of it that shares no code: a list of characters, each with its origin."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from engine.prompts.traced import Traced, settle, text_of, traced
from tests.fakes.origins import (
    MESSAGE,
    TEMPLATE,
    Pairs,
    all_pairs,
    as_pairs,
    as_traced,
    cut,
    found,
    joined,
    of_message,
    of_template,
    one_origin,
    stripped,
    text,
)

LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")

characters = st.tuples(st.sampled_from("aab<|> \t\r\n\x1c\u2003%{ßİΣσ"), st.sampled_from([TEMPLATE, MESSAGE]))
anything = st.lists(characters, max_size=12)
something = st.lists(characters, min_size=1, max_size=2)
counts = st.integers(-1, 4)


def found_from_the_right(of: Pairs, sep: str, count: int) -> list[tuple[int, int]]:
    spans = found(of[::-1], sep[::-1], count)
    return [(len(of) - end, len(of) - start) for start, end in reversed(spans)]


@given(anything, st.slices(12), st.integers(-12, 11))
def test_slices_characters_and_loops(of: Pairs, part: slice, index: int) -> None:
    assert as_pairs(as_traced(of)[part]) == of[part]
    assert all_pairs(as_traced(of)) == [[pair] for pair in of]
    assert all_pairs(reversed(as_traced(of))) == [[pair] for pair in reversed(of)]
    if -len(of) <= index < len(of):
        assert as_pairs(as_traced(of)[index]) == [of[index]]


@given(anything, anything, st.integers(-1, 3))
def test_sums_and_multiples(left: Pairs, right: Pairs, count: int) -> None:
    assert as_pairs(as_traced(left) + as_traced(right)) == left + right
    plain = of_template(text(right))
    assert as_pairs(as_traced(left) + text(right)) == left + plain
    assert as_pairs(text(right) + as_traced(left)) == plain + left
    assert as_pairs(as_traced(left) * count) == as_pairs(count * as_traced(left)) == left * count


@given(anything, st.lists(anything | anything.map(text), max_size=4))
def test_joins(between: Pairs, parts: list[Pairs | str]) -> None:
    texts = [part if isinstance(part, str) else as_traced(part) for part in parts]
    wanted = joined(between, [of_template(part) if isinstance(part, str) else part for part in parts])
    assert as_pairs(as_traced(between).join(texts)) == wanted
    assert as_pairs(as_traced(between).join(iter(texts))) == wanted


@given(anything, st.none() | something)
def test_strips(of: Pairs, chars: Pairs | None) -> None:
    given_chars = None if chars is None else as_traced(chars)

    drop = r"\s" if chars is None else f"[{re.escape(text(chars))}]"
    left = stripped(of, drop)
    right = stripped(of[::-1], drop)[::-1]
    assert as_pairs(as_traced(of).lstrip(given_chars)) == left
    assert as_pairs(as_traced(of).rstrip(given_chars)) == right
    assert as_pairs(as_traced(of).strip(given_chars)) == stripped(right, drop)


@given(anything, something)
def test_prefixes_and_suffixes(of: Pairs, part: Pairs) -> None:
    traced_text, affix = as_traced(of), as_traced(part)
    begins, ends = text(of).startswith(text(part)), text(of).endswith(text(part))
    assert as_pairs(traced_text.removeprefix(affix)) == (of[len(part) :] if begins else of)
    assert as_pairs(traced_text.removesuffix(affix)) == (of[: -len(part)] if ends else of)


@given(anything, something, counts)
@example(list(zip("-+a-+-", "\0\1\0\1\0\1", strict=True)), [("-", "\1"), ("+", "\1")], -1)
def test_splits_at_a_text(of: Pairs, sep: Pairs, count: int) -> None:
    traced_text, at, plain = as_traced(of), as_traced(sep), text(sep)
    assert all_pairs(traced_text.split(at, count)) == cut(of, found(of, plain, count))
    assert all_pairs(traced_text.rsplit(at, count)) == cut(of, found_from_the_right(of, plain, count))
    once = found(of, plain, 1)
    middle = [of[start:end] for start, end in once] or [[]]
    first, *rest = cut(of, once)
    assert all_pairs(traced_text.partition(at)) == [first, *middle, *(rest or [[]])]
    once = found_from_the_right(of, plain, 1)
    middle = [of[start:end] for start, end in once] or [[]]
    *begun, last = cut(of, once)
    assert all_pairs(traced_text.rpartition(at)) == [*(begun or [[]]), *middle, last]


@given(anything, counts)
def test_splits_at_whitespace(of: Pairs, count: int) -> None:
    words = [match.span() for match in re.finditer(r"\S+", text(of))]
    whole = [of[start:end] for start, end in words]
    left, right = whole, whole
    if 0 <= count < len(words):
        left = [*whole[:count], of[words[count][0] :]]
        kept = len(words) - count
        right = [of[: words[kept - 1][1]], *whole[kept:]]
    assert all_pairs(as_traced(of).split(maxsplit=count)) == left
    assert all_pairs(as_traced(of).rsplit(maxsplit=count)) == right


@given(anything)
def test_splits_into_lines(of: Pairs) -> None:
    ends = [match.span() for match in LINE_ENDS.finditer(text(of))]
    lines = cut(of, ends)
    kept = [line + of[start:end] for line, (start, end) in zip(lines, ends, strict=False)] + lines[
        len(ends) :
    ]
    dropped = slice(None) if kept[-1] else slice(-1)
    assert all_pairs(as_traced(of).splitlines()) == lines[dropped]
    assert all_pairs(as_traced(of).splitlines(keepends=True)) == kept[dropped]


@given(anything, something, anything | anything.map(text), counts)
def test_replacements(of: Pairs, old: Pairs, new: Pairs | str, count: int) -> None:
    own = of_template(new) if isinstance(new, str) else new
    wanted = joined(own, cut(of, found(of, text(old), count)))
    put = new if isinstance(new, str) else as_traced(new)
    assert as_pairs(as_traced(of).replace(as_traced(old), put, count)) == wanted
    # Between all characters: not followed.
    made = text(of).replace("", text(own), count)
    assert as_pairs(as_traced(of).replace("", put, count)) == one_origin(made, of, own)


@pytest.mark.parametrize("name", ["capitalize", "casefold", "lower", "swapcase", "title", "upper"])
def test_cases(name: str) -> None:
    @given(anything)
    @example([("ß", MESSAGE), ("<", TEMPLATE)])
    @example([("Σ", TEMPLATE), ("a", MESSAGE), ("Σ", TEMPLATE)])
    def check(of: Pairs) -> None:
        made: str = getattr(text(of), name)()
        wanted = one_origin(made, of)
        if len(made) == len(of):
            wanted = [(character, origin) for character, (_, origin) in zip(made, of, strict=True)]
        assert as_pairs(getattr(as_traced(of), name)()) == wanted

    check()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("center", [7]),
        ("center", [7, "*"]),
        ("expandtabs", []),
        ("format", [1]),
        ("format_map", [{}]),
        ("ljust", [7]),
        ("rjust", [7, "*"]),
        ("zfill", [7]),
    ],
)
def test_methods_that_are_not_followed_give_text_of_one_origin(name: str, arguments: list[Any]) -> None:
    @given(st.lists(characters.filter(lambda pair: pair[0] != "{"), max_size=9))
    def check(of: Pairs) -> None:
        made = getattr(text(of), name)(*arguments)
        assert as_pairs(getattr(as_traced(of), name)(*arguments)) == one_origin(made, of)

    check()


def test_what_goes_into_a_method_that_is_not_followed_counts() -> None:
    assert as_pairs(Traced("a", b"\1").rjust(2, Traced("<"))) == [("<", MESSAGE), ("a", MESSAGE)]
    assert as_pairs(Traced("{}", b"\1\1").format(Traced("<"))) == [("<", MESSAGE)]
    assert as_pairs(Traced("{a}", b"\1\1\1").format(a=Traced("<"))) == [("<", MESSAGE)]
    assert as_pairs(Traced("%3d") % 1) == of_message("  1")
    # Its table may hold a message's characters as numbers.
    assert as_pairs(Traced("a", b"\1").translate({97: 60})) == [("<", MESSAGE)]


# How a field is written, what it is given, what it becomes.
fields = (
    anything.map(lambda of: ("s", as_traced(of), of))
    | anything.map(lambda of: ("6s", as_traced(of), one_origin(f"{text(of):>6}", of)))
    | anything.map(lambda of: ("-.1s", as_traced(of), one_origin(text(of)[:1], of)))
    | anything.map(lambda of: ("r", as_traced(of), one_origin(repr(text(of)), of)))
    | anything.map(lambda of: ("s", [as_traced(of)], one_origin(str([text(of)]), of)))
    | anything.map(lambda of: ("s", {as_traced(of): 1}, one_origin(str({text(of): 1}), of)))
    | anything.map(lambda of: ("s", Markup(text(of)), of_message(text(of))))
    | st.text("a<>", max_size=3).map(lambda of: ("s", of, of_template(of)))
    | st.integers().map(lambda of: ("d", of, of_template(str(of))))
    | st.floats().map(lambda of: (".2f", of, of_template(f"{of:.2f}")))
    | st.sampled_from("<a").map(lambda of: ("c", ord(of), of_message(of)))
    | st.just(("%", None, of_template("%")))
)
literals = st.lists(characters.filter(lambda pair: pair[0] != "%"), max_size=3)


@given(st.lists(st.tuples(literals, fields), max_size=4), literals)
def test_the_operator_percent(parts: list[tuple[Pairs, tuple[str, Any, Pairs]]], end: Pairs) -> None:
    in_turn, named, wanted = Traced(""), Traced(""), list[tuple[str, str]]()
    for index, (literal, (how, _, becomes)) in enumerate(parts):
        in_turn += as_traced(literal) + f"%{how}"
        named += as_traced(literal) + (f"%{how}" if how == "%" else f"%(v{index}){how}")
        wanted += literal + becomes
    given = [value for _, (how, value, _) in parts if how != "%"]
    assert as_pairs((in_turn + as_traced(end)) % tuple(given)) == wanted + end
    mapping = {f"v{index}": value for index, (_, (_, value, _)) in enumerate(parts)}
    assert as_pairs((named + as_traced(end)) % mapping) == wanted + end
    if len(given) == 1 and not isinstance(given[0], dict):
        assert as_pairs((in_turn + as_traced(end)) % given[0]) == wanted + end


@pytest.mark.parametrize(("form", "values"), [("%*d<", (5, 1)), ("%((a))s<", {"(a)": 1})])
def test_a_format_that_is_not_followed_gives_text_of_one_origin(form: str, values: Any) -> None:
    assert as_pairs(traced(form) % values) == of_template(
        form.replace("%*d", "    1").replace("%((a))s", "1")
    )
    assert as_pairs(Traced(form) % values) == of_message(form % values)


@pytest.mark.parametrize("form", ["%", "%q", "%s %s", "%(a)s", "%d"])
def test_what_the_operator_percent_refuses_is_refused(form: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        form % "x"
    with pytest.raises((TypeError, ValueError)):
        traced(form) % "x"


@pytest.mark.parametrize(
    ("parts", "held"),
    [
        (["a", 1, None, 1.5, True, range(3), {"a": ["b"]}], False),
        ([Traced("")], False),
        ([Traced("a")], True),
        ([Traced("ab", b"\1\0")], True),
        ([[("a", {"b": Traced("c")})]], True),
        ([{Traced("a"): 1}], True),
        ([{Traced("a")}], True),
        ([Markup("a")], True),
        ([b"a"], True),
        ([object()], True),
        ([iter("a")], True),
    ],
)
def test_text_made_of_parts_that_may_hold_a_message_counts_as_a_messages(
    parts: list[Any], held: bool
) -> None:
    assert as_pairs(settle("x", *parts)) == [("x", MESSAGE if held else TEMPLATE)]
    made = text_of(parts)
    assert as_pairs(made) == (of_message if held else of_template)(str(parts))


def test_it_equals_the_same_str() -> None:
    assert Traced("a") == "a"
    assert hash(Traced("a")) == hash("a")
    assert {"a": 1}[Traced("a")] == 1
    assert "b" in Traced("abc")
    assert type(str.__str__(Traced("a"))) is str


def test_every_method_of_str_that_gives_text_is_followed_and_no_name_is_added() -> None:
    """A template sees the names of str and no others."""
    tests = {
        name
        for name in dir(str)
        if re.match("is|r?find|r?index|count|encode|(starts|ends)with|maketrans", name)
    }
    public = {name for name in dir(Traced) if not name.startswith("_")}
    assert public == {name for name in dir(str) if not name.startswith("_")}
    assert public - set(vars(Traced)) == tests


@pytest.mark.parametrize(
    "call", ["a + 1", "1 + a", "a * 'x'", "a[9]", "a['x']", "a.split('')", "a.join([1])", "a.replace(1, a)"]
)
def test_arguments_that_str_refuses_are_refused(call: str) -> None:
    for a in ("a", Traced("a")):
        with pytest.raises((TypeError, ValueError, IndexError)):
            eval(call, {"a": a})
