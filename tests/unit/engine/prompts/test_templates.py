"""Templates that do what public ones do, against transformers.

What a template writes as control tokens stands in guillemets. transformers renders it once with the tokens,
and once with a mark for each, which tells them from those of a message.
"""

from __future__ import annotations

import json
import re

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import InvalidArgument
from engine.prompts.chat import ROLES, Message
from tests.models.chats import CONTROL, control, encoded, plain_ids, rendered, template_of, tokenizer

pytestmark = pytest.mark.parity

THINKING = """
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' and not message.content.startswith('<tool>') %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set answer = message.content %}
    {%- set thought = '' %}
    {%- if message.role == 'assistant' and '</think>' in answer %}
        {%- set thought = answer.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- set answer = answer.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '«im_start»' + message.role + '\n' }}
    {%- if thought and loop.index0 > ns.last %}
        {{- '«think»\n' + thought.strip('\n') + '\n«/think»\n\n' }}
    {%- endif %}
    {{- answer + '«im_end»\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '«im_start»assistant\n' }}
{%- endif %}"""

REASONING = """
{%- set ns = namespace(system='') -%}
{%- for m in messages if m['role'] == 'system' -%}
    {%- set ns.system = ns.system + ('\n\n' if ns.system else '') + m['content'] -%}
{%- endfor -%}
«s»{{ ns.system }}
{%- for m in messages -%}
    {%- if m['role'] == 'user' -%}«｜User｜»{{ m['content'] }}
    {%- elif m['role'] == 'assistant' -%}
        {%- set content = m['content'] -%}
        {%- if '</think>' in content -%}{%- set content = (content.split('</think>')|last) -%}{%- endif -%}
        «｜Assistant｜»{{ content }}«｜end｜»
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}«｜Assistant｜»«think»\n{%- endif -%}"""

DATED = """
{{- '«begin_of_text»' }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '«start_header_id»system«end_header_id»\n\n' }}
{{- 'Today: ' + strftime_now('%Y') + '\n\n' + system + '«eot_id»' }}
{%- for message in messages %}
    {{- '«start_header_id»' + message['role'] + '«end_header_id»\n\n' }}
    {{- message['content'] | trim + '«eot_id»' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '«start_header_id»assistant«end_header_id»\n\n' }}{% endif %}"""

ALTERNATING = """«s»
{%- set first = '' -%}
{%- if messages[0].role == 'system' -%}
    {%- set first = messages[0].content.strip() ~ '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn.role == 'user') != (loop.index0 is even) -%}
        {{ raise_exception('roles must alternate: ' ~ turn.content) }}
    {%- endif -%}
    {%- set name = 'model' if turn.role == 'assistant' else turn.role -%}
    {{ '«start_of_turn»' ~ name ~ '\n' ~ (first if loop.first else '') }}
    {{- turn.content | trim }}«end_of_turn»{{ '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '«start_of_turn»model\n' }}{%- endif -%}"""

COUNTING = """
{%- set ns = namespace(users=0, total=messages | selectattr('role', 'equalto', 'user') | list | length) %}
{{- '«s»' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.users = ns.users + 1 %}
        {%- if ns.users == ns.total and messages[0].role == 'system' %}
            {{- '«INST» %s\n\n%s «/INST»' % (messages[0].content, message.content) }}
        {%- else %}
            {{- '«INST» {} «/INST»'.format(message.content) }}
        {%- endif %}
    {%- elif message.role == 'assistant' %}
        {{- ' ' ~ message.content | replace('\n\n', '\n') ~ '«/s»' }}
    {%- endif %}
{%- endfor %}"""

TAGGED = """{% for message in messages %}
{{ '«role»\n' + message['content'] + '«end»\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '«assistant»\n' }}{% endif %}"""

TOOLS = """
{%- macro turn(role, parts) -%}
    «im_start»{{ role }}{{ '\n' }}
    {%- for part in parts %}
        {{- part if part is string else part | tojson }}
        {%- if not loop.last %}{{ '\n' }}{% endif %}
    {%- endfor -%}
    {{- caller() if caller is defined -}}
    «im_end»
{%- endmacro -%}
{%- if tools %}{{ turn('system', tools) }}{% endif %}
{%- for message in messages %}
    {%- if message.content.startswith('{') -%}
        {{- turn(message.role, [message, {'tool': message.content | trim | upper}]) -}}
    {%- else -%}
        {%- call turn(message.role, message.content.splitlines()) %}«tool»{{ message.content[1:3] }}«/tool»
        {%- endcall -%}
    {%- endif -%}
{%- endfor -%}
«im_start»assistant
"""

PARTS = """
{%- for message in messages -%}
    {%- if loop.index > 3 -%}{%- break -%}{%- endif -%}
    {%- if not message.content -%}{%- continue -%}{%- endif -%}
    {%- set body -%}«im_start»{{ message.role }}: {{ message.content }}{%- endset -%}
    {%- set halves = body.split(': ', 1) -%}
    {{- halves[0] | replace('user', 'you') -}}
    {% filter trim %} {{ halves[1:] | join('') }}«im_end» {% endfilter -%}
    {%- if message.role == 'assistant' -%}
        {% generation %}{{ message.content[:5] }}{% endgeneration %}
    {%- endif -%}
{%- endfor -%}
{{- ['«im_start»', 'assistant'] | join }}{{ '-'.join(['«im»', '«im»']) }}"""

TEMPLATES = {
    "thinking": THINKING,
    "reasoning": REASONING,
    "dated": DATED,
    "alternating": ALTERNATING,
    "counting": COUNTING,
    "tagged": TAGGED,
    "tools": TOOLS,
    "parts": PARTS,
}


def written_with(source: str, tokens: dict[str, str]) -> str:
    """The template with these texts for the control tokens that it writes."""

    def token(found_name: re.Match[str]) -> str:
        name = found_name[1]
        return next(tokens[form] for form in (f"<|{name}|>", f"<{name}>", f"[{name}]") if form in tokens)

    by_role = json.dumps({role: tokens[f"<|{role}|>"] for role in ROLES}, ensure_ascii=False)
    in_parts = "'<|' + message['role'] + '|>'"
    of_role = in_parts if tokens is AS_THEY_ARE else f"{by_role}[message['role']]"
    return re.sub("«(.*?)»", token, source.replace("«role»", f"' + {of_role} + '"))


AS_THEY_ARE = {name: name for name in CONTROL}
MARKS = {name: chr(0xE000 + index) for index, name in enumerate(CONTROL)}
TOKENS = {mark: name for name, mark in MARKS.items()}
said = st.lists(
    st.sampled_from([*CONTROL, *"<>[]|{ \n", "\n\n", "think", "im_", "the fox", "é"]), max_size=6
).map("".join)
chats = st.lists(st.builds(Message, st.sampled_from(ROLES), said), min_size=1, max_size=5) | st.lists(
    said, min_size=1, max_size=5
).map(lambda contents: [Message(ROLES[1 + index % 2], content) for index, content in enumerate(contents)])


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_gives_what_transformers_gives_and_its_own_tokens_count(name: str) -> None:
    source, marked = written_with(TEMPLATES[name], AS_THEY_ARE), written_with(TEMPLATES[name], MARKS)
    ours = template_of(source)

    @settings(max_examples=60)
    @given(chats)
    def check(messages: list[Message]) -> None:
        try:
            wanted = rendered(source, messages)
        except jinja2.TemplateError:
            with pytest.raises(InvalidArgument):
                encoded(ours, messages)
            return
        assert ours.render(tuple(messages)) == wanted
        parts = re.split("([\ue000-\uf8ff])", rendered(marked, messages))
        assert "".join(TOKENS.get(part, part) for part in parts) == wanted
        ids = [[control(TOKENS[part])] if part in TOKENS else plain_ids(part) for part in parts]
        assert encoded(ours, messages) == [number for part in ids for number in part]

    check()


def test_a_template_that_looks_for_a_token_in_a_message_finds_it() -> None:
    """Thoughts of earlier turns are left out, those of the last one come as the template writes them."""
    ours = template_of(written_with(THINKING, AS_THEY_ARE))
    told = "<think>\nWhy</think>\n\nSo."
    messages = [
        Message("user", "?"),
        Message("assistant", told),
        Message("user", "!"),
        Message("assistant", told),
    ]
    ids = encoded(ours, messages)
    assert tokenizer().decode(ids, skip_special_tokens=False) == (
        "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n<|im_start|>user\n!<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nWhy\n</think>\n\nSo.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [ids.count(control(name)) for name in ("<think>", "</think>", "<|im_start|>")] == [1, 1, 5]
