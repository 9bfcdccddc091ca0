from __future__ import annotations

import json
import re
import time

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidArgument
from engine.prompts.chat import MAX_MESSAGES, ChatTemplate, Message, parse_messages

NO_SPECIAL: dict[str, str] = {}


def render(source: str, *contents: str, special: dict[str, str] = NO_SPECIAL) -> str:
    return ChatTemplate(source, special).render(tuple(Message("user", content) for content in contents))


contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), contents), min_size=1, max_size=4)
)
def test_messages_survive_their_json(turns: list[tuple[str, str]]) -> None:
    for ascii_only in (True, False):
        text = json.dumps([{"role": r, "content": c} for r, c in turns], ensure_ascii=ascii_only)
        assert parse_messages(text) == tuple(Message(r, c) for r, c in turns)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_messages(r'[{"role": "user", "content": "\ud83d\ude00"}]')[0].content == "😀"


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00", r"\ude00\ud83d"])
def test_half_a_pair_of_surrogates_is_refused(half: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: messages\[0\]\.content: has a lone surrogate"):
        parse_messages(rf'[{{"role": "user", "content": "x{half}"}}]')


def test_the_number_of_messages_is_bounded() -> None:
    turn = {"role": "user", "content": ""}
    assert len(parse_messages(json.dumps([turn] * MAX_MESSAGES))) == MAX_MESSAGES
    with pytest.raises(InvalidArgument, match="must be a JSON list of 1 to 1024 messages"):
        parse_messages(json.dumps([turn] * (MAX_MESSAGES + 1)))


def test_the_prompt_ends_where_the_answer_begins() -> None:
    source = "{% for m in messages %}<{{ m['role'] }}>{{ m.content }}{% endfor %}"
    ending = "{% if add_generation_prompt %}>>{% endif %}"
    assert render(source + ending, "a", "b") == "<user>a<user>b>>"


def test_special_tokens_are_names_and_an_absent_one_is_undefined() -> None:
    source = "[{{ bos_token }}|{{ image_token }}|{{ eos_token }}|{{ eos_token is defined }}]"
    special = {"bos_token": "<s>", "image_token": "<image>"}
    assert render(source, "", special=special) == "[<s>|<image>||False]"


def test_blocks_are_trimmed_as_transformers_does() -> None:
    assert render("{% if true %}\n  {% set x = 1 %}\nx{{ x }}\n{% endif %}\n", "") == "x1\n"


def test_loop_controls_and_json_and_time_are_there() -> None:
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    assert render(source, "") == "01"
    assert render("{{ {'b': 'é<', 'a': [1]} | tojson }}", "") == '{"b": "é<", "a": [1]}'
    source = "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=True, sort_keys=True, separators=(',', ':')) }}"
    assert render(source, "") == r'{"a":1,"b":"\u00e9"}'
    assert render("{{ [1] | tojson(indent=1) }}", "") == "[\n 1\n]"
    assert render("{{ strftime_now('%Y') }}", "") == time.strftime("%Y")


def test_tools_and_documents_are_defined_as_none() -> None:
    """Templates ask `if tools is not none`: an undefined name would count as tools."""
    source = "{% if tools is not none %}tools{% endif %}{% if documents is not none %}documents{% endif %}"
    assert render(source, "") == ""


def test_generation_blocks_are_rendered() -> None:
    """transformers marks the assistant's tokens with them, for training."""
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "a") == "a!"


def test_a_refusal_of_the_template_is_the_clients_fault() -> None:
    with pytest.raises(InvalidArgument) as caught:
        render("{{ raise_exception('roles must alternate') }}", "")
    assert str(caught.value) == (
        "INVALID_ARG: messages: the model's chat template refuses them: roles must alternate"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content + 1 }}",
        "{{ messages[5].content }}",
        "{{ messages[0].content | int / 0 }}",
        "{{ messages[0].content.index('z') }}",
        "{{ '{} {}'.format(1) }}",
        "{{ {}['x']['y'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0].content.upper.__func__.__globals__ }}",
        "{{ messages[0].content._mask[0] }}",
        "{{ '{0.__class__.__mro__}'.format(messages[0].content) }}",
        "{{ '{x.__class__.__mro__}'.format_map({'x': messages[0].content}) }}",
        "{{ ('{0.upper.__func__.__globals__}'|attr('format'))(messages[0].content) }}",
        "{{ (['{0.__class__.__mro__}']|map(attribute='format')|first)('') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].__setitem__('role', 'x') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{% include 'x' %}",
    ],
)
def test_whatever_a_template_cannot_do_is_one_kind_of_error(source: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: messages: the model's chat template refuses"):
        render(source, "x")


@pytest.mark.parametrize("source", ["{% if %}", "{{ x", "{% endfor %}", "{% unknown %}"])
def test_an_invalid_template_does_not_load(source: str) -> None:
    with pytest.raises(jinja2.TemplateError):
        ChatTemplate(source, {})


def test_text_is_not_escaped() -> None:
    assert render("{{ messages[0].content }}", "<b>&\"'{{ 1 }}") == "<b>&\"'{{ 1 }}"


def test_the_clock_of_a_template_is_local() -> None:
    assert re.fullmatch(r"\d\d \w{3} \d{4}", render("{{ strftime_now('%d %b %Y') }}", ""))
