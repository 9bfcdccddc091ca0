from __future__ import annotations

import random

import pytest
import rstr
from faker import Faker

from safety.rules.catalogue import rules

_RULES = {rule.name: rule for rule in rules()}


def _found(name: str, text: str) -> list[str]:
    return [text[finding.start : finding.end] for finding in _RULES[name].find(text)]


def test_numbers_of_a_program_are_no_cards() -> None:
    """One in three begins as a card does, and of those one in ten has the check digit."""
    draw = random.Random(7)
    text = "\n".join(repr(draw.random()) for _ in range(3000))
    assert _found("credit_card", text) == []


def test_columns_of_numbers_are_no_cards() -> None:
    draw = random.Random(7)
    rows = (" ".join(str(draw.choice((7, 64, 583, 46258))) for _ in range(12)) for _ in range(2000))
    assert _found("credit_card", "\n".join(rows)) == []


def test_cards_side_by_side_are_found_one_by_one() -> None:
    cards = ["4111 1111 1111 1111", "5500-0000-0000-0004", "3782 822463 10005", "6011111111111117"]
    assert _found("credit_card", " ".join(cards)) == cards


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("_joe@y.org_", "_joe@y.org"),
        ("'joe@y.org'", "joe@y.org"),
        ("joe@y.org--", "joe@y.org"),
        ("müller@web.de", "müller@web.de"),
        ("写信给joe@y.org吧", "joe@y.org"),
        ("a@b.c.d.e.f.g.com", "a@b.c.d.e.f.g.com"),
        ("o'brien@y.ie", "o'brien@y.ie"),
    ],
)
def test_an_address_is_whole_and_without_the_signs_around_it(text: str, address: str) -> None:
    assert _found("email", text) == [address]


def test_a_unit_of_systemd_is_no_address() -> None:
    assert _found("email", "systemctl enable getty@tty1.service") == []


@pytest.mark.parametrize("password", ["pass1%40word", "pa$$word12", "a*b*c*d*1"])
def test_the_signs_of_templates_occur_in_passwords(password: str) -> None:
    assert _found("url_password", f"redis://me:{password}@host:6379/0") == [password]


@pytest.mark.parametrize("value", ["aB3$kd9!xQ2z1", "aB3%kd9*xQ2z1"])
def test_the_signs_of_templates_occur_in_assigned_values(value: str) -> None:
    assert _found("assigned_secret", f'password = "{value}"') == [value]


@pytest.mark.parametrize("template", ["${PASSWORD}", "$PASSWORD", "{password}", "%s", "%(pw)s", "***"])
def test_a_template_is_no_password(template: str) -> None:
    assert _found("url_password", f"redis://me:{template}@host:6379/0") == []


@pytest.mark.parametrize(
    "form", ["API_KEY={}", "export DB_PASSWORD={}\n", "token: {}", "secret_access_key = {} # x"]
)
def test_a_drawn_value_needs_no_quotes(form: str) -> None:
    value = rstr.Rstr(random.Random(3)).xeger("[a-z][0-9][A-Z][A-Za-z0-9+/]{37}")
    assert _found("unquoted_secret", form.format(value)) == [value]


@pytest.mark.parametrize(
    "line",
    [
        "token = self.next_token_of_line2(Parser)",
        "token: ExpressionToken2Statement()",
        "password = CorrectHorseBatteryStaple",
        "secret_name = application_secret_2_name",
    ],
)
def test_a_name_in_code_is_no_drawn_value(line: str) -> None:
    assert _found("unquoted_secret", line) == []


def test_a_class_of_a_style_sheet_is_no_key() -> None:
    assert _found("model_key", ".sk-circle-fade-dot-10-animated { top: 0 }") == []
    key = rstr.Rstr(random.Random(3)).xeger("sk-ant-api03-[A-Za-z0-9_-]{93}AA")
    assert _found("model_key", f"key {key}") == [key]


def test_the_body_of_an_encrypted_key_follows_its_headers() -> None:
    body = "\n".join(rstr.Rstr(random.Random(5)).xeger("[A-Za-z0-9+/]{64}") for _ in range(20))
    head = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0F\n\n"
    assert _found("private_key", f"{head}{body}\n-----END RSA PRIVATE KEY-----") == [head + body]


def test_an_iban_of_fakers_ends_before_capital_words() -> None:
    faker = Faker("de_DE")
    faker.seed_instance(11)
    for _ in range(200):
        number = faker.iban()
        spaced = " ".join(number[place : place + 4] for place in range(0, len(number), 4))
        assert _found("iban", f"IBAN {spaced} BIC COBADEFF") == [spaced]


@pytest.mark.parametrize("space", ["\u00a0", "\u202f"])
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("credit_card", "4111 1111 1111 1111"),
        ("phone", "+49 30 901820"),
        ("phone", "020 7219 3000"),
        ("phone", "1 212 736 5000"),
        ("phone", "01 42 68 53 00"),
    ],
)
def test_a_number_is_found_with_spaces_that_do_not_break(name: str, number: str, space: str) -> None:
    text = number.replace(" ", space)
    assert _found(name, f"Call: {text}.") == [text]
