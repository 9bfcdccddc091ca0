"""jinja2's immutable sandbox for chat templates, in which texts remember who wrote them.

A template comes with a checkpoint: it may compute text and nothing else. It has what transformers gives it:
raise_exception, strftime_now, tojson, the generation block. A plain str here is the template's own text; a
message's text is a Traced, and so is everything that a template makes from it. The result of an operation
that is not tracked counts as a message's text too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, Final, NoReturn

import jinja2
import markupsafe
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_join, make_attrgetter
from jinja2.nodes import EvalContext, Node
from jinja2.parser import Parser
from jinja2.runtime import Context, markup_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import pass_eval_context

from engine.prompts.traced import NOTHING, Traced, settle, text_of, traced

# Filters that return their input; filters that only use methods of str; all others are not tracked.
_CHOOSING: Final = frozenset(("attr", "d", "default", "first", "last", "max", "min", "random"))
_FOLLOWED: Final = frozenset(
    ("capitalize", "center", "format", "lower", "replace", "reverse", "string", "trim", "truncate", "upper")
)


class _Generation(Extension):
    """The block `generation` marks the assistant's tokens for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 (declared so by jinja2)

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Markup(markupsafe.Markup):
    """Escaped text has methods of its own; it counts as a message's, as do its characters in a loop."""

    def __iter__(self) -> Iterator[str]:
        return iter(Traced(self))


class _Generator(CodeGenerator):
    def write_commons(self) -> None:
        """Names that a template's code calls: the operator ~ joins, and blocks of escaped text are markup."""
        super().write_commons()
        self.writeline("str_join, markup_join = environment.str_join, environment.markup_join")
        self.writeline("Markup = environment.markup")


class Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _Generator
    intercepted_binops = frozenset(("%",))
    concat = NOTHING.join
    markup = Markup

    def __init__(self) -> None:
        extensions = (_Generation, loopcontrols)
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_finalize)
        self.globals.update(raise_exception=_refuse, strftime_now=_now)
        self.filters["tojson"] = _to_json
        for name in self.filters.keys() - _CHOOSING:
            self.filters[name] = _kept(self.filters[name], name in _FOLLOWED)
        self.filters["join"] = _join

    def str_join(self, values: Iterable[object]) -> Traced:
        return NOTHING.join(map(text_of, values))

    def markup_join(self, values: Iterable[object]) -> str:
        values = list(values)
        made = markup_join(values)
        return Markup(made) if isinstance(made, markupsafe.Markup) else self.str_join(values)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return super().getattr(_owned(obj), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(_owned(obj), argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or not isinstance(value.__self__, Traced):
            return wrapped

        def made(*args: Any, **values: Any) -> Traced:
            if value.__name__ == "format_map":
                (values,), args = args, ()
            return _Formatter(self).followed(value.__self__, args, values)

        return made

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return super().call_binop(context, operator, _owned(left), right)

    def call(self, context: Context, obj: Any, /, *args: Any, **options: Any) -> Any:
        made = super().call(context, obj, *args, **options)
        if isinstance(made, markupsafe.Markup):
            return Markup(made)
        # Bytes do not record who wrote the text.
        foreign = isinstance(getattr(obj, "__self__", None), bytes | Markup)
        return Traced(made) if foreign and type(made) is str else made


class _Formatter(SandboxedFormatter):
    """str.format: the format's own text, then the value of its field, and so on."""

    def followed(self, text: Traced, args: Sequence[Any], values: Mapping[str, Any]) -> Traced:
        self._given = text, args, values
        self._parts: list[Traced] = []
        self._field = NOTHING
        self.vformat(text, args, values)
        return NOTHING.join(self._parts)

    def parse(self, text: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
        # A field's format specification can contain fields and is then parsed too; it is no Traced.
        for literal, name, how, conversion in super().parse(text):
            if isinstance(text, Traced):
                self._parts.append(settle(literal, text))
            yield literal, name, how, conversion
            if isinstance(text, Traced) and name is not None:
                self._parts.append(self._field)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        made = super().convert_field(value, conversion)
        return made if made is value else settle(made, value)

    def format_field(self, value: Any, how: str) -> str:
        made: str = super().format_field(value, how)
        if how.endswith("c"):  # a number as a character: it can be one of a message's
            self._field = Traced(made)
        else:
            self._field = settle(made, value, self._given) if how else text_of(value)
        return made


def _owned(value: Any) -> Any:
    """A plain str as the template's text, so that its methods are tracked."""
    return traced(value) if type(value) is str else value


@pass_eval_context
def _finalize(context: EvalContext, value: Any) -> Any:
    """What an expression writes."""
    return value if context.autoescape and isinstance(value, str) else text_of(value)


def _kept(made: Callable[..., Any], followed: bool) -> Callable[..., Any]:
    """A filter whose text is tracked if it only uses methods of str, and otherwise settled."""

    @wraps(made)
    def kept(*args: Any, **options: Any) -> Any:
        result = made(*map(_owned, args), **options)
        if isinstance(result, markupsafe.Markup):
            return Markup(result)
        if not isinstance(result, str) or (followed and isinstance(result, Traced)):
            return result
        passed = (Context, jinja2.Environment, EvalContext)
        return settle(result, [value for value in args if not isinstance(value, passed)], options)

    return kept


_not_followed_join = _kept(do_join, followed=False)


@pass_eval_context
def _join(
    context: EvalContext, values: Iterable[Any], between: Any = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        values = map(make_attrgetter(context.environment, attribute), values)
    if context.autoescape:
        made: str = _not_followed_join(context, list(values), between)
        return made
    return text_of(between).join(map(text_of, values))


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return settle(datetime.now().astimezone().strftime(form), form)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)
