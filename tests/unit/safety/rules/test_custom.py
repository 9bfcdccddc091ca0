from __future__ import annotations

from pathlib import Path

import pytest

from safety.rules.custom import load
from safety.rules.rule import Finding, RuleError


def write(folder: Path, content: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(content, encoding="utf-8")
    return path


def test_rules_of_each_form(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# ours\nred herring\n\ngoose\n", encoding="utf-8")
    path = write(
        tmp_path,
        """
        [[rule]]
        name = "ticket"
        kind = "personal"
        pattern = '\\bTICKET-[0-9]{4,6}\\b'
        longest = 13
        [[rule]]
        name = "birds"
        kind = "words"
        words_file = "list.txt"
        [[rule]]
        name = "colours"
        kind = "words"
        words = ["red"]
        """,
    )
    ticket, birds, colours = load(path)
    text = "TICKET-1234: a red herring"
    assert list(ticket.find(text)) == [Finding("ticket", 0, 11)]
    assert list(birds.find(text)) == [Finding("birds", 15, 26)]
    assert list(colours.find(text)) == [Finding("colours", 15, 18)]
    assert [rule.longest for rule in (ticket, colours)] == [13, 6]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("rule = 1 2", "is not TOML: .*line 1"),
        ("", "has no table"),
        ("rule = [1]", "rule 1: is 1, want a table"),
        ("[[rules]]", "unknown key 'rules'"),
        ("[[rule]]\nkind='words'\nwords=['a']", "rule 1: name is None"),
        ("[[rule]]\nname='a'\nkind='bad'\nwords=['a']", r"rule 1 \(a\): kind is 'bad'"),
        ("[[rule]]\nname='a'\nkind='words'\nword=['a']", "rule 1: unknown key 'word'"),
        ("[[rule]]\nname='a'\nkind='words'", r"rule 1 \(a\): has nothing to find"),
        ("[[rule]]\nname='a'\nkind='words'\nwords=['a']\npattern='a'", "has pattern and words"),
        ("[[rule]]\nname='a'\nkind='words'\nwords='a'", "words is 'a', want a list"),
        ("[[rule]]\nname='a'\nkind='words'\nwords=['--']", "the entry '--'"),
        ("[[rule]]\nname='a'\nkind='words'\nwords_file='none.txt'", "cannot read .*none.txt: No such file"),
        ("[[rule]]\nname='a'\nkind='secret'\npattern='ab(c'", "does not compile: .*position 2"),
        ("[[rule]]\nname='a'\nkind='secret'\npattern='ab+'", "without an upper bound"),
        ("[[rule]]\nname='a'\nkind='secret'\npattern='(?:a{0,99}){9}'", "more than 100000 ways"),
        ("[[rule]]\nname='a'\nkind='secret'\npattern='a{0,3}'", "matches nothing at all"),
        (
            "[[rule]]\nname='a'\nkind='secret'\npattern='abc'\nlongest=2",
            "may have 3 characters",
        ),
        ("[[rule]]\nname='a'\nkind='secret'\npattern='abc'\nlongest=true", "longest is True"),
        ("[[rule]]\nname='email'\nkind='secret'\npattern='abc'", "name 'email' is taken"),
        ("[[rule]]\nname='a'\nkind='secret'\npattern='b'\n" * 2, "rule 2: the name 'a' is taken"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(tmp_path: Path, content: str, reason: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(RuleError, match=reason) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"ab\xff")
    with pytest.raises(RuleError, match="is not UTF-8 at byte 2"):
        load(path)
