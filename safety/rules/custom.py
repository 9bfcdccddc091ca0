"""Rules that a user writes: a TOML file of patterns and of lists of words."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from safety.rules.bounds import Unbounded, bounds
from safety.rules.catalogue import rules
from safety.rules.lists import Words
from safety.rules.patterns import Pattern
from safety.rules.rule import Rule, RuleError

_KEYS = ("name", "kind", "pattern", "words", "words_file", "longest")
_KINDS = ("personal", "secret", "words")


def load(path: Path) -> list[Rule]:
    """The rules of `[[rule]]` tables, in the order of the file.

    Each has `name`, `kind` (personal, secret, words) and one of `pattern`, `words` (a list) or `words_file`
    (one word or phrase a line, beside the file; lines that begin with # are comments). `longest` refuses a
    rule whose matches could be longer. Raises RuleError with the file, the rule and the place.
    """
    loaded: list[Rule] = []
    taken = {rule.name for rule in rules()}
    for number, table in enumerate(_tables(path), 1):
        where = f"{path}: rule {number}"
        if not isinstance(table, dict):
            raise RuleError(f"{where}: is {table!r}, want a table [[rule]]")
        rule = _rule(table, path, where)
        if rule.name in taken:
            raise RuleError(f"{where}: the name {rule.name!r} is taken, by a built-in rule or one above")
        taken.add(rule.name)
        loaded.append(rule)
    return loaded


def _tables(path: Path) -> Sequence[Any]:
    content = _read(path, str(path))
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"{path}: is not TOML: {error}") from None
    _known(document, ("rule",), str(path))
    tables = document.get("rule")
    if not isinstance(tables, list) or not tables:
        raise RuleError(f"{path}: has no table [[rule]]")
    return tables


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RuleError(f"{where}: {path} is not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise RuleError(f"{where}: cannot read {path}: {error.strerror}") from None


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise RuleError(f"{where}: unknown key {key!r}; known are {', '.join(keys)}")


def _rule(table: Mapping[str, Any], path: Path, where: str) -> Rule:
    _known(table, _KEYS, where)
    name = _text(table, "name", where)
    where = f"{where} ({name})"
    kind = _text(table, "kind", where)
    if kind not in _KINDS:
        raise RuleError(f"{where}: kind is {kind!r}, want {', '.join(_KINDS)}")
    given = [key for key in ("pattern", "words", "words_file") if key in table]
    if len(given) != 1:
        raise RuleError(
            f"{where}: has {' and '.join(given) or 'nothing to find'}, want one of pattern, words, words_file"
        )
    if given == ["pattern"]:
        rule: Rule = _pattern(name, kind, _text(table, "pattern", where), where)
    else:
        rule = _list(name, kind, _entries(table, path, where), where)
    _limit(rule, table.get("longest"), where)
    return rule


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RuleError(f"{where}: {key} is {value!r}, want a text")
    return value


def _pattern(name: str, kind: str, pattern: str, where: str) -> Pattern:
    try:
        if bounds(pattern).longest == 0 or regex.compile(pattern).match(""):
            raise RuleError(
                f"{where}: pattern {pattern!r} matches nothing at all: make a part of it necessary"
            )
        return Pattern(name, kind, pattern)
    except (re.error, regex.error) as error:
        raise RuleError(f"{where}: pattern {pattern!r} does not compile: {error}") from None
    except Unbounded as error:
        raise RuleError(f"{where}: pattern {pattern!r}: {error}") from None


def _entries(table: Mapping[str, Any], path: Path, where: str) -> list[str]:
    if "words_file" in table:
        lines = _read(path.parent / _text(table, "words_file", where), where).splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    words = table["words"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RuleError(f"{where}: words is {words!r}, want a list of texts")
    return words


def _list(name: str, kind: str, entries: list[str], where: str) -> Words:
    try:
        return Words(name, kind, entries)
    except RuleError as error:
        raise RuleError(f"{where}: {error}") from None


def _limit(rule: Rule, limit: Any, where: str) -> None:
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise RuleError(f"{where}: longest is {limit!r}, want a number of characters, at least 1")
    if rule.longest > limit:
        raise RuleError(f"{where}: its matches may have {rule.longest} characters, longest allows {limit}")
