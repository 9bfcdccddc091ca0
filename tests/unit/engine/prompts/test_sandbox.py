"""Templates against transformers: the same text, of which it is known who wrote what.

A random template is computed by transformers, and once more here, on lists of characters with their origins.
And all that jinja2 offers is asked, one by one, what it makes of a message.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.filters import FILTERS as JINJA_FILTERS

from tests.fakes.origins import (
    TEMPLATE,
    Pairs,
    as_pairs,
    cut,
    found,
    joined,
    of_message,
    of_template,
    one_origin,
    stripped,
    text,
)
from tests.models.chats import BOS, CONTROL, control, encoded, plain_ids, rendered, template_of, user

pytestmark = pytest.mark.parity


@dataclass(frozen=True)
class Part:
    """A piece of a template, and what it becomes of the contents of three messages."""

    source: str
    made: Callable[[Sequence[Pairs]], Pairs]


pieces = st.sampled_from(
    ["<|im_start|>", "<|im_end|>", "<s>", "<|im", "|>", "<|", "im|>", "s>", "x", " ", "\n"]
)
fragments = st.lists(pieces, max_size=5).map("".join)
ends = st.none() | st.integers(-4, 4)


def quoted(of: str) -> str:
    return json.dumps(of)


def literal(of: str) -> Part:
    return Part(quoted(of), lambda _: of_template(of))


leaves = (
    fragments.map(literal)
    | st.integers(0, 2).map(lambda i: Part(f"messages[{i}].content", lambda contents: contents[i]))
    | st.integers(0, 2).map(lambda i: Part(f"messages[{i}]['content']", lambda contents: contents[i]))
    | st.just(Part("messages[0].role", lambda _: of_template("user")))
    | st.just(Part("bos_token", lambda _: of_template(BOS)))
    | st.integers(0, 9).map(lambda i: Part(f"({i}|string)", lambda _: of_template(str(i))))
)


def of_one(part: Part, at: str) -> st.SearchStrategy[Part]:
    """What can be made of one expression, with a piece of text `at`."""
    source, lit = f"({part.source})", quoted(at)

    def when(form: str, made: Callable[[Pairs], Pairs]) -> Part:
        return Part(form.format(source, lit), lambda contents: made(part.made(contents)))

    def whole(made: Callable[[str], str]) -> Callable[[Pairs], Pairs]:
        return lambda of: one_origin(made(text(of)), of)

    def cased(made: Callable[[str], str]) -> Callable[[Pairs], Pairs]:
        return lambda of: [(made(character), origin) for character, origin in of]

    one_of = f"[{re.escape(at)}]"
    return st.sampled_from(
        [
            when("{0}.strip()", lambda of: stripped(stripped(of, r"\s")[::-1], r"\s")[::-1]),
            when("{0}|trim", lambda of: stripped(stripped(of, r"\s")[::-1], r"\s")[::-1]),
            when("{0}.lstrip({1})", lambda of: stripped(of, one_of)),
            when("{0}.rstrip({1})", lambda of: stripped(of[::-1], one_of)[::-1]),
            when("{0}|trim({1})", lambda of: stripped(stripped(of, one_of)[::-1], one_of)[::-1]),
            when("{0}.split({1})[0]", lambda of: cut(of, found(of, at))[0]),
            when("{0}.split({1})[-1]", lambda of: cut(of, found(of, at))[-1]),
            when("{0}.split({1}, 1)|last", lambda of: cut(of, found(of, at, 1))[-1]),
            when("{0}['split']({1})|first", lambda of: cut(of, found(of, at))[0]),
            when("{0}.partition({1})[2]", lambda of: [*cut(of, found(of, at, 1)), []][1]),
            when("{0}|upper", cased(str.upper)),
            when("{0}.lower()", cased(str.lower)),
            when("({0} * 2)", lambda of: of * 2),
            when("{0}|list|join", lambda of: of),
            when("{0}|reverse", lambda of: of[::-1]),
            when("{0}[::-1]", lambda of: of[::-1]),
            when("{0}|string", lambda of: of),
            when("{0}|default('<s>')", lambda of: of),
            when("{0}.center(9)", whole(lambda of: of.center(9))),
            when("{0}|tojson", whole(lambda of: json.dumps(of, ensure_ascii=False))),
            when("[{0}]|string", whole(lambda of: str([of]))),
            when("{0}.encode().decode()", lambda of: of_message(text(of))),
        ]
    )


def of_many(parts: Sequence[Part], at: str, start: int | None, end: int | None) -> st.SearchStrategy[Part]:
    """What can be made of three expressions."""
    sources, lit = [f"({part.source})" for part in parts], quoted(at)

    def when(form: str, made: Callable[[Pairs, Pairs, Pairs], Pairs]) -> Part:
        def computed(contents: Sequence[Pairs]) -> Pairs:
            a, b, c = (part.made(contents) for part in parts)
            return made(a, b, c)

        return Part(form.format(*sources, lit), computed)

    lone = of_template(at)
    slice_source = f"{'' if start is None else start}:{'' if end is None else end}"
    return st.sampled_from(
        [
            when("({0} + {1})", lambda a, b, c: a + b),
            when("({0} ~ {3} ~ 1 ~ {1})", lambda a, b, c: a + lone + of_template("1") + b),
            when(f"{{0}}[{slice_source}]", lambda a, b, c: a[start:end]),
            when("{0}.replace({3}, {1})", lambda a, b, c: joined(b, cut(a, found(a, at)))),
            when("{0}|replace({3}, {1}, 1)", lambda a, b, c: joined(b, cut(a, found(a, at, 1)))),
            when("[{0}, {1}, {2}]|join({3})", lambda a, b, c: joined(lone, [a, b, c])),
            when("{0}.join([{1}, {2}])", lambda a, b, c: joined(a, [b, c])),
            when(
                "'<s>%s%%|>%s' % ({0}, {1})", lambda a, b, c: of_template("<s>") + a + of_template("%|>") + b
            ),
            when("'%(b)s<|%(a)s'|format(a={0}, b={1})", lambda a, b, c: b + of_template("<|") + a),
            when(
                "'<s>{{}}<|{{}}'.format({0}, {1})",
                lambda a, b, c: of_template("<s>") + a + of_template("<|") + b,
            ),
            when("'{{x[0]}}{{{{s>'.format(x=[{0}])", lambda a, b, c: a + of_template("{s>")),
            when("({0} if {3} in {1} else {2})", lambda a, b, c: a if at in text(b) else c),
            when("({0} or {1})", lambda a, b, c: a or b),
            when("{{{3}: {0}}}.get({1}, {2})", lambda a, b, c: a if at == text(b) else c),
        ]
    )


def grown(part: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    one = st.tuples(part, pieces).flatmap(lambda given: of_one(*given))
    many = st.tuples(st.tuples(part, part, part), pieces, ends, ends).flatmap(lambda given: of_many(*given))
    return one | many


expressions = st.recursive(leaves, grown, max_leaves=6)


def statement(form: str, part: Part, made: Callable[[Pairs], Pairs] = lambda of: of) -> Part:
    return Part(form.format(part.source), lambda contents: made(part.made(contents)))


def around(left: str, right: str) -> Callable[[Pairs], Pairs]:
    return lambda of: of_template(left) + of + of_template(right)


def sequence(parts: Sequence[Part]) -> Part:
    return Part(
        "".join(part.source for part in parts),
        lambda contents: [pair for part in parts for pair in part.made(contents)],
    )


def of_expression(part: Part) -> st.SearchStrategy[Part]:
    def upper(of: Pairs) -> Pairs:
        return [(character.upper(), origin) for character, origin in of]

    def words(of: Pairs) -> Pairs:
        return [pair for word in cut(of, found(of, "<|")) for pair in [*word, *of_template("s>")]]

    return st.sampled_from(
        [
            statement("{{{{ {0} }}}}", part),
            statement("{{% set x = {0} %}}<s{{{{ x }}}}", part, around("<s", "")),
            statement("{{% set x %}}<|{{{{ {0} }}}}>{{% endset %}}{{{{ x }}}}|", part, around("<|", ">|")),
            statement("{{% set x | upper %}}{{{{ {0} }}}}{{% endset %}}{{{{ x }}}}", part, upper),
            statement(
                "{{% macro m(x) %}}<{{{{ x }}}}>{{% endmacro %}}{{{{ m({0}) }}}}", part, around("<", ">")
            ),
            statement(
                "{{% macro m() %}}<{{{{ caller() }}}}>{{% endmacro %}}"
                "{{% call m() %}}{{{{ {0} }}}}{{% endcall %}}",
                part,
                around("<", ">"),
            ),
            statement("{{% for x in ({0}).split('<|') %}}{{{{ x }}}}s>{{% endfor %}}", part, words),
            statement("{{% for x in {0} %}}{{{{ x }}}}{{% else %}}{{% endfor %}}", part),
            statement(
                "{{% filter upper %}}{{{{ {0} }}}}s>{{% endfilter %}}",
                part,
                lambda of: upper(around("", "s>")(of)),
            ),
            statement("{{% generation %}}{{{{ {0} }}}}{{% endgeneration %}}", part),
            statement(
                "{{% set ns = namespace(x={0}) %}}{{% set ns.x = '<|' + ns.x %}}{{{{ ns.x }}}}",
                part,
                around("<|", ""),
            ),
            statement(
                "{{% if '<s>' in {0} %}}<s>{{% endif %}}",
                part,
                lambda of: of_template("<s>") if "<s>" in text(of) else [],
            ),
            statement("{{% with x = {0} %}}{{{{ x }}}}{{% endwith %}}", part),
            statement("{{{{ ({0})|e }}}}", part, lambda of: of_message(html.escape(text(of)))),
        ]
    )


raw = st.lists(st.sampled_from(["<|im_start|>", "<|im", "|>", "<s>", "s>", "x"]), min_size=1, max_size=2).map(
    "".join
)
statements = expressions.flatmap(of_expression) | raw.map(lambda of: Part(of, lambda _: of_template(of)))
templates = st.lists(statements, min_size=1, max_size=3).map(sequence)


def expected_ids(of: Pairs) -> list[int]:
    """The longest special tokens of which the template wrote every character, and text between them."""
    ids, plain, at, whole = list[int](), "", 0, text(of)
    while at < len(of):
        names = [
            name
            for name in CONTROL
            if whole.startswith(name, at) and all(origin == TEMPLATE for _, origin in of[at : at + len(name)])
        ]
        if not names:
            plain += whole[at]
            at += 1
            continue
        ids += [*plain_ids(plain), control(max(names, key=len))]
        plain = ""
        at += len(max(names, key=len))
    return ids + plain_ids(plain)


@settings(max_examples=200)
@given(templates, st.tuples(fragments, fragments, fragments))
def test_a_random_template_gives_the_text_of_transformers_and_knows_who_wrote_it(
    template: Part, contents: tuple[str, ...]
) -> None:
    messages = user(*contents)
    wanted = rendered(template.source, messages)
    ours = template_of(template.source)
    assert ours.render(messages) == wanted
    pairs = template.made([of_message(content) for content in contents])
    assert as_pairs(ours.render(messages)) == pairs
    assert encoded(ours, messages) == expected_ids(pairs)


# What jinja2 offers, one by one. The templates below write none of the characters of SHY.
ODD = "<S>&lt;s&gt; ßω\n <s>Ω %3C ω<"
SHY = "<>&;ßωΩ"

FILTERS = {
    "abs": ["(0 - content|length)|abs"],
    "attr": ["(content|attr('upper'))()"],
    "batch": ["content|batch(3, '.')|list", "(content|batch(3, '.')|first)|join('-')"],
    "capitalize": ["content|capitalize", "('x' ~ content)|capitalize"],
    "center": ["content|center(40)"],
    "count": ["content|count"],
    "d": ["content|d('x')", "missing|d(content)", "''|d(content, true)"],
    "default": ["content|default('x')", "missing|default(content)"],
    "dictsort": ["{content: 1, 'x': content}|dictsort"],
    "e": [
        *(
            "content|e",
            "(content|e) + 'x'",
            "'x' + (content|e)",
            "(content|e) + content",
            "'x' ~ (content|e)",
        ),
        *(
            "'%s' % (content|e)",
            "('x%s'|e) % content",
            "('x%s'|e)|format(content)",
            "('{}'|e).format(content)",
        ),
        *("(content|e).unescape()", "(content|e).striptags()", "(content|e).split('w')|join('-')"),
        *("[content|e]", "'-'.join([content|e])", "('-'|e).join([content])", "(content|e).format()"),
        *(
            "(content|e)|list",
            "(content|e)|first",
            "(content|e)|last",
            "(content|e)|sort|join",
            "(content|e)[2]",
        ),
        *(
            "content + (content|e)",
            "(content|e) + (content|safe)",
            "(content|e)|reverse",
            "(content|e)|join('-')",
            "(content|e)|upper",
            "(content|e)|string",
        ),
    ],
    "escape": ["content|escape"],
    "filesizeformat": ["content|length|filesizeformat"],
    "first": ["content|first", "[content, 'x']|first"],
    "float": ["content|float"],
    "forceescape": ["content|forceescape"],
    "format": [
        "'%s%r%5s'|format(content, content, content)",
        "'%(a)s'|format(a=content)",
        "content[:4]|format",
    ],
    "groupby": ["messages|groupby('content')", "(messages|groupby('content')|first).grouper"],
    "indent": ["content|indent", "content|indent('+', true, true)", "'x\\nx'|indent(content)"],
    "int": ["content|int"],
    "items": ["{content: content}|items|list"],
    "join": [
        *("content|join('-')", "['x', 1, content, [content]]|join(content)", "messages|join(',', 'content')"),
        *("messages|join(',', attribute='content.0')", "messages|join", "[[content]]|join"),
    ],
    "last": ["content|last", "[content]|last"],
    "length": ["content|length"],
    "list": ["content|list", "(content|list)[3]"],
    "lower": ["content|lower"],
    "map": [
        *("messages|map(attribute='content')|map('upper')|join(', ')", "[content]|map('urlencode')|list"),
        *("[content]|map('replace', 's', 'x')|first", "[content]|map('e')|list"),
    ],
    "max": ["content|max", "['x', content]|max"],
    "min": ["content|min", "['x', content]|min"],
    "pprint": ["content|pprint", "messages|pprint", "(content * 9)|pprint"],
    "random": ["[content]|random", "content[0]|random"],
    "reject": ["[content]|reject('none')|join"],
    "rejectattr": ["messages|rejectattr('content', 'none')|list"],
    "replace": [
        *("content|replace('s', 'x')", "'xyx'|replace('x', content)", "content|replace(content, content)"),
        *("content|replace('', '-')", "525|replace('5', content)", "content|replace('s', 'x', 1)"),
    ],
    "reverse": ["content|reverse", "[content]|reverse|list"],
    "round": ["1.5|round"],
    "safe": ["content|safe", "(content|safe) ~ content", "(content|safe) * 2", "(content|safe)[2:]"],
    "select": ["[content]|select('string')|join"],
    "selectattr": ["messages|selectattr('content')|list"],
    "slice": ["content|slice(3)|list", "(content|slice(3)|first)|join"],
    "sort": ["content|sort", "[content, 'x']|sort"],
    "string": [
        "content|string",
        "[content]|string",
        "{'x': content}.values()|string",
        "content.encode()|string",
    ],
    "striptags": ["content|striptags"],
    "sum": ["[1, 2]|sum", "[[content]]|sum(start=[])"],
    "title": ["content|title", "('x ' ~ content)|title"],
    "tojson": ["content|tojson", "messages|tojson(indent=2)", "{content: 'x'}|tojson(ensure_ascii=true)"],
    "trim": ["content|trim", "content|trim('S')", "('x' ~ content)|trim(content)", "[content]|trim"],
    "truncate": [
        "content|truncate(9)",
        "content|truncate(9, true, '-', 0)",
        "('x' * 400)|truncate(end=content)",
    ],
    "unique": ["content|unique|join", "[content, content]|unique|list"],
    "upper": ["content|upper"],
    "urlencode": ["content|urlencode", "{content: content}|urlencode"],
    "urlize": ["content|urlize", "'www.x.org'|urlize(target=content)"],
    "wordcount": ["content|wordcount"],
    "wordwrap": [
        "content|wordwrap(5)",
        "content|wordwrap(5, wrapstring='-')",
        "'x y'|wordwrap(1, true, content)",
    ],
    "xmlattr": ["{'x': content}|xmlattr"],
}

METHODS = {
    "capitalize": ["content.capitalize()"],
    "casefold": ["content.casefold()"],
    "center": ["content.center(40)", "'x'.center(5, content[0])"],
    "encode": [
        *(
            "content.encode()",
            "content.encode().decode()",
            "content.encode('utf-8').hex()",
            "[content.encode()]",
        ),
        *("content.encode().split()[0].decode()", "(content.encode() + 'x'.encode()).decode()"),
        *("'%s' % content.encode()", "'{}'.format(content.encode())", "content.encode() ~ 'x'"),
    ],
    "expandtabs": ["(content + '\\t').expandtabs()"],
    "format": [
        *("content.format()", "'{}-{}'.format(content, 'x')", "'{0!r}{0!s:4}{0!a}'.format(content)"),
        *("'{x}'.format(x=[content])", "'{!s}'.format([content])", "'{0[0].content}'.format(messages)"),
        *("'{:{}}'.format('x', content[0] ~ '^5')", "('{:' ~ content[0] ~ '^5}').format('x')"),
        *(
            "'{:{w}}-{}'.format('x', 'y', w=content[0] ~ '^5')",
            "'{:c}'.format(60)",
            "'{}'['format'](content)",
        ),
    ],
    "format_map": ["'{x}'.format_map({'x': content})", "'{x!r:4}'.format_map({'x': [content]})"],
    "join": ["content.join(['x', 'y'])", "'-'.join([content, content])", "'-'.join(content)"],
    "ljust": ["content.ljust(40)", "'x'.ljust(5, content[0])"],
    "lower": ["content.lower()"],
    "lstrip": ["content.lstrip('S')", "content.lstrip('<S')"],
    "maketrans": ["'x'.translate('x'.maketrans('x', content[0]))", "'x'.maketrans({'x': content})"],
    "partition": ["content.partition('s')", "content.partition('s')|join('-')"],
    "removeprefix": ["content.removeprefix('x')"],
    "removesuffix": ["content.removesuffix(content[3:])"],
    "replace": ["content.replace('s', 'x')", "'x'.replace('x', content)", "'x'.replace('', content)"],
    "rjust": ["content.rjust(40)", "'x'.rjust(5, content[0])"],
    "rpartition": ["content.rpartition('s')|last"],
    "rsplit": ["content.rsplit('s', 1)|join('-')", "content.rsplit()"],
    "rstrip": ["content.rstrip()"],
    "split": ["content.split('s')|join('-')", "content.split()", "('x' ~ content).split(maxsplit=1)|last"],
    "splitlines": ["content.splitlines()|join('-')"],
    "strip": ["content.strip()", "('x' ~ content).strip('x')"],
    "swapcase": ["content.swapcase()"],
    "title": ["content.title()", "('x ' ~ content).title()"],
    "translate": [
        "content.translate({115: 'x'})",
        "'x'.translate({120: content})",
        "'x'.translate({120: 60})",
    ],
    "upper": ["content.upper()", "content['upper']()"],
    "zfill": ["content.zfill(40)"],
}

OTHER = {
    "operators": [
        *(
            "content + 'x'",
            "'x' + content",
            "content ~ 1 ~ content",
            "content * 2",
            "2 * content",
            "content[1]",
        ),
        *("content[-2:]", "'%s' % content", "'%s%c' % (content, 60)", "'%(x)r' % {'x': content}"),
        *("content[:3] % ()", "1 ~ [content]", "content if content else 'x'", "content or 'x'"),
    ],
    "containers": [
        *("[content]", "(content,)", "{content: content}", "messages", "messages[0].items()|list"),
        *("messages[0].get('content')", "dict(x=content)", "[content] + ['x']", "messages[0].values()"),
        *("dict(**{content: 'x'})|first", "namespace(**{content: 'x'})", "dict([content[:2]])"),
    ],
    "clock": ["strftime_now(content)"],
}
BLOCKS = {
    "namespace": "{% set ns = namespace(x='x') %}{% set ns.x = ns.x ~ content %}{{ ns.x }}{{ ns }}",
    "in turn": """
        {% set c = cycler('x', content) %}{{ c.next() }}{{ c.next() }}{{ c.current }}
        {% set j = joiner(content) %}{{ j() }}{{ j() }}""",
    "loops": """
        {% for m in messages recursive %}{{ loop.cycle(content, 'x') }}{{ m.content }}
        {% if loop.depth < 3 %}{{ loop([m]) }}{% endif %}{% endfor %}""",
    "unpacking": """
        {% set a, b = content[:2] %}{{ a }}{{ b }}
        {% for a, b in [content[:2]] %}{{ b }}{% endfor %}""",
    "blocks": "{% block b %}{{ messages[0].content }}{% endblock %}{{ self.b() }}",
    "macros": """
        {% macro m(x, y=content) %}{{ x }}-{{ y }}{{ varargs }}{{ kwargs }}{% endmacro %}
        {{ m('x') }}{{ m(content, 'y', content, z=content) }}{{ m(content)|upper }}
        {{ m(*content[:4], **{content: 1}) }}""",
    "callers": """
        {% macro m(x) %}{{ caller(x) }}{% endmacro %}
        {% call(y) m(content) %}{{ y }}{{ content }}{% endcall %}""",
    "filters": """
        {% filter upper %}{{ content }}{% endfilter %}
        {% filter urlencode %}{{ content }}{% endfilter %}
        {% set x | trim %}{{ content }}{% endset %}{{ x }}
        {% set x %}{{ content }}{% endset %}{{ x|list }}""",
    "escaped": """
        {% set ns = namespace() %}
        {% autoescape true %}
            {{ content }}{{ content ~ 'x' }}{{ 'x' ~ (content|safe) }}{{ [content] }}
            {% set x %}{{ content }}{% endset %}{{ x }}{{ x ~ content }}
            {% for c in x %}{{ c|safe }}{% endfor %}
            {% macro m() %}{{ content }}{% endmacro %}{{ m() }}{{ m() + 'x' }}{{ m()|list }}
            {{ [content, 'x']|join('-') }}{{ [x]|join(content) }}{{ (x ~ content)|list }}
            {{ content|replace('s', 'x') }}{{ (content|safe)|replace('s', content) }}
            {% filter upper %}{{ content }}{% endfilter %}
            {% set ns.made = [x, m(), x ~ content, content ~ 'x', content|e, content|replace('s', 'x')] %}
            {% set ns.m = m %}
        {% endautoescape %}
        {% for part in ns.made %}{{ part }}{% for c in part %}{{ c }}{% endfor %}{% endfor %}
        {{ ns.m() }}{% for c in ns.m() %}{{ c }}{% endfor %}""",
    "escaped or not": """
        {% for flag in [true, false] %}
            {% autoescape flag %}
                {{ content }}{{ content ~ 'x' }}{{ 'x' ~ (content|e) }}{{ ['x', content]|join('-') }}
                {% set x %}{{ content }}{% endset %}{{ x ~ content }}{% for c in x %}{{ c }}{% endfor %}
                {% filter upper %}{{ content }}{% endfilter %}
            {% endautoescape %}
        {% endfor %}""",
}
WAYS = [way for table in (FILTERS, METHODS, OTHER) for ways in table.values() for way in ways]


def test_every_filter_and_every_method_of_str_is_covered() -> None:
    assert set(FILTERS) == set(JINJA_FILTERS)
    gives_no_text = re.compile("is|r?find|r?index|count|(starts|ends)with|__")
    assert set(METHODS) == {name for name in dir(str) if not gives_no_text.match(name)}


def check_way(source: str) -> None:
    source = "{% set content = messages[0].content %}" + source
    made = template_of(source).render(user(ODD))
    assert made == rendered(source, user(ODD))
    assert not {character for character, origin in as_pairs(made) if origin == TEMPLATE} & set(SHY)


@pytest.mark.parametrize("way", WAYS)
def test_text_of_a_message_is_known_as_such_after_every_operation(way: str) -> None:
    """Its characters, and those that the way decodes from it, in the text that transformers gives."""
    check_way("{{ " + way + " }}")


@pytest.mark.parametrize("block", BLOCKS)
def test_text_of_a_message_is_known_as_such_in_every_block(block: str) -> None:
    check_way(BLOCKS[block])


OF_MARKUP = {"e", "escape", "forceescape", "safe"}
OTHERWISE = {
    "format": "'%s'|format(bos_token)",
    "replace": "bos_token|replace('x', 'y')",
    "striptags": "(bos_token ~ '1')|striptags",
}
NO_TEXT = {
    "abs",
    "attr",
    "dictsort",
    "filesizeformat",
    "groupby",
    "items",
    "rejectattr",
    "round",
    "selectattr",
}
NO_TEXT |= {
    "batch",
    "count",
    "float",
    "int",
    "length",
    "list",
    "map",
    "reject",
    "select",
    "slice",
    "sort",
    "sum",
}
NO_TEXT |= {"unique", "wordcount", "xmlattr"}


@pytest.mark.parametrize("name", sorted(set(JINJA_FILTERS) - OF_MARKUP - NO_TEXT))
def test_what_a_filter_makes_of_the_templates_text_is_the_templates(name: str) -> None:
    """Though no one follows how."""
    made = template_of("{{ " + OTHERWISE.get(name, f"bos_token|{name}") + " }}").render(user("<s>"))
    assert as_pairs(made) == of_template(made)
    assert made


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("{{ '<s>{}</s>'.format(content) }}", [("<s>", 1), ("m", 0), ("</s>", 1)]),
        ("{{ '{1}{0}{{'.format('<s>', content) }}", [("m", 0), ("<s>{", 1)]),
        ("{{ '{a}{b}'.format(a='<s>', b=content) }}", [("<s>", 1), ("m", 0)]),
        ("{{ '{a}{b}'.format_map({'a': '<s>', 'b': content}) }}", [("<s>", 1), ("m", 0)]),
        ("{{ '{}{!s}{!r}'.format('<s>', content, content) }}", [("<s>", 1), ("m'm'", 0)]),
        ("{{ '<s>{:3}{:03}'.format(content, 7) }}", [("<s>", 1), ("m  007", 0)]),
        ("{{ '{0[0]}{1.x}'.format(['<s>'], {'x': content}) }}", [("<s>", 1), ("m", 0)]),
        ("{{ '{:>4}{}'.format('<s>', 5) }}", [(" <s>5", 1)]),
        ("{{ '{:{}}'.format('<s>', 4) }}{{ content }}", [("<s> ", 1), ("m", 0)]),
        ("{{ '<s>{}'['format'](content) }}", [("<s>", 1), ("m", 0)]),
        ("{{ ('<s>{}'|attr('format'))(content) }}", [("<s>", 1), ("m", 0)]),
        ("{{ content.format('<s>') }}", [("m", 0)]),
        ("{{ ('{}' ~ content).format('<s>') }}", [("<s>", 1), ("m", 0)]),
        (
            "{{ '<s>%s%%' % content }}{{ '<s>%s</s>' % (content,) }}",
            [("<s>", 1), ("m", 0), ("%<s>", 1), ("m", 0), ("</s>", 1)],
        ),
        (
            "{{ ['<s>', content]|join('|') }}{{ '|'.join([content, '<s>']) }}",
            [("<s>|", 1), ("mm", 0), ("|<s>", 1)],
        ),
        (
            "{{ '<s>%s'|format(content) }}{{ 'x<s>'|replace('x', content) }}",
            [("<s>", 1), ("mm", 0), ("<s>", 1)],
        ),
        ("{{ '<s>xx'|replace('x', content, count=1) }}", [("<s>", 1), ("m", 0), ("x", 1)]),
        (
            "{{ ' <s>'|trim(content) }}{{ '<s>xx'|truncate(4, true, end=content, leeway=0) }}",
            [(" <s><s>", 1), ("m", 0)],
        ),
        (
            "{{ (content ~ '<s>')|reverse }}{{ (content ~ '<s>')|upper|lower }}",
            [(">s<", 1), ("mm", 0), ("<s>", 1)],
        ),
        ("{{ (content ~ '<s>')|capitalize|string }}", [("M", 0), ("<s>", 1)]),
        ("{{ missing|d('<s>') }}{{ missing|default('<s>') }}", [("<s><s>", 1)]),
        ("{{ ['<s>', content]|first }}{{ [content, '<s>']|last }}", [("<s><s>", 1)]),
        ("{{ ['<s>', content]|min }}{{ ['x<s>', content]|max }}", [("<s>x<s>", 1)]),
        ("{{ {content: '<s>'}[content] }}{{ {content: '<s>'}.get(content) }}", [("<s><s>", 1)]),
        ("{{ content and '<s>' }}{{ [content, '<s>'][1] }}", [("<s><s>", 1)]),
        ("{{ strftime_now('<s>') }}", [("<s>", 1)]),
        ("{% macro m(x) %}<s>{% endmacro %}{{ m(content) }}{{ m(content)|trim }}", [("<s><s>", 1)]),
        ("{% set j = joiner('<s>') %}{{ j() }}{{ j() }}{{ cycler('<s>', content).next() }}", [("<s><s>", 1)]),
        (
            "{{ '<' ~ 's' ~ '>' ~ 1 }}{{ [1, '<s>'] }}{{ {'<s>': none} }}",
            [("<s>1[1, '<s>']{'<s>': None}", 1)],
        ),
        ("{{ 's' if content.startswith('m') }}{{ content|length }}{{ content == 'm' }}", [("s1True", 1)]),
        ("{{ missing }}{{ '<s>' ~ missing }}", [("<s>", 1)]),
    ],
)
def test_who_wrote_what(source: str, wanted: list[tuple[str, int]]) -> None:
    source = "{% set content = messages[0].content %}" + source
    made = template_of(source).render(user("m"))
    assert made == rendered(source, user("m"))
    assert as_pairs(made) == [
        pair for part, own in wanted for pair in (of_template if own else of_message)(part)
    ]
