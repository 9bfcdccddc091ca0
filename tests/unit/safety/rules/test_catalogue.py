"""What each rule finds and leaves, by examples of standards, vendors' pages and numbering plans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.rules import checks
from safety.rules.catalogue import rules
from safety.rules.corpus import planted
from safety.rules.measure import measure

PEM = "-----BEGIN PRIVATE KEY-----"
RULES = {rule.name: rule for rule in rules()}


def found(rule: str, text: str) -> list[str]:
    return [text[one.start : one.end] for one in RULES[rule].find(text)]


@pytest.mark.parametrize(
    ("rule", "text", "parts"),
    [
        ("email", "write to jo.o'neil+x@mail.b-c.org.", ["jo.o'neil+x@mail.b-c.org"]),
        ("email", "请联系abc@x.com谢谢", ["abc@x.com"]),
        ("phone", "call +49 (0)30 901820 now", ["+49 (0)30 901820"]),
        ("phone", "(212) 736-5000 or 212-736-5000 x12", ["(212) 736-5000", "212-736-5000 x12"]),
        ("phone", "London 020 7219 3000, 2 people", ["020 7219 3000"]),
        ("phone", "030 901820 5 Leute", ["030 901820"]),
        ("phone", "+1.8005550123 01 42 68 53 00", ["+1.8005550123", "01 42 68 53 00"]),
        ("credit_card", "4111 1111 1111 1111 123", ["4111 1111 1111 1111"]),
        ("credit_card", "3782-822463-10005", ["3782-822463-10005"]),
        ("iban", "DE89 3704 0044 0532 0130 00 Bank", ["DE89 3704 0044 0532 0130 00"]),
        ("iban", "GB82WEST12345698765432", ["GB82WEST12345698765432"]),
        ("us_ssn", "SSN 123-45-6789.", ["123-45-6789"]),
        ("ipv4", "from 8.8.8.8.", ["8.8.8.8"]),
        ("ipv6", "at 2001:4860:4860::8888 and", ["2001:4860:4860::8888"]),
        ("aws_access_key", "AKIAIOSFODNN7EXAMPLE", ["AKIAIOSFODNN7EXAMPLE"]),
        (
            "github_token",
            "t=github_pat_" + "a" * 22 + "_" + "b" * 59,
            ["github_pat_" + "a" * 22 + "_" + "b" * 59],
        ),
        ("url_password", "https://u:hunter22@x.org/", ["hunter22"]),
        ("assigned_secret", 'API-Key: "a8F3kd9sL2mq0Zx7"', ["a8F3kd9sL2mq0Zx7"]),
        (
            "private_key",
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-",
            ["-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq"],
        ),
    ],
)
def test_finds(rule: str, text: str, parts: list[str]) -> None:
    assert found(rule, text) == parts


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("email", "a@b and @app.route and x@y.1"),
        ("phone", "2013-05-06 12:30, 02110-1301, 123-45-6789, +1.2345, 3.14159265358979"),
        ("phone", "01 02 01 02 01, +35236450.6, 00840.847582083, [+-100000000]"),
        ("credit_card", "4111 1111 1111 1112 and 0.4632923122697 and 4444444444444444 and 568282634449"),
        ("iban", "DE88 3704 0044 0532 0130 00 and DE89 3704 0044 0532 0130"),
        ("us_ssn", "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000 078-05-1120"),
        ("ipv4", "10.0.0.1 192.168.1.1 127.0.0.1 256.1.1.1 1.2.3 1.2.3.4.5 224.0.0.251 8.8.08.8"),
        ("ipv6", "::1 fe80::1 std::a::b 2001:db8::1 12:30:45"),
        ("model_key", "sk-a-class-of-a-style-sheet-with-a-long-name"),
        ("url_password", "https://user:<password>@x.org http://a:80/b@c ftp://u[:p]@h"),
        ("assigned_secret", 'api_key = "your-api-key-123456" password="correcthorsebattery"'),
        ("jwt", "eyJub3QganNvbiBhdCBhbGw.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"),
    ],
)
def test_leaves(rule: str, text: str) -> None:
    assert found(rule, text) == []


@given(st.integers(10**14, 10**15 - 1), st.integers(0, 14), st.integers(1, 9))
def test_luhn_sees_each_changed_digit(number: int, place: int, change: int) -> None:
    body = [int(digit) for digit in str(number)]
    # The definition of ISO/IEC 7812-1 with a table of what doubled digits add up to.
    table = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    total = sum(table[digit] if index % 2 == 0 else digit for index, digit in enumerate(reversed(body)))
    right = [*body, -total % 10]
    assert checks.luhn("".join(map(str, right)))
    right[place] = (right[place] + change) % 10
    assert not checks.luhn("".join(map(str, right)))


@given(st.text("0123456789", min_size=18, max_size=18))
def test_iban_needs_the_right_check_digits(account: str) -> None:
    # D is 13, E is 14.
    right = 98 - int(account + "131400") % 97
    accepted = {digits for digits in range(2, 99) if checks.iban(f"DE{digits:02}{account}", 0, 22) == 22}
    assert accepted == {right}


def test_rules_find_what_others_made() -> None:
    results = measure(rules(), planted(60, seed=3))
    for name, one in results.items():
        assert one.planted == 60
        # The numbers of faker are not all in a numbering plan, nor its cards in an issuer's range.
        assert one.found >= {"phone": 36, "credit_card": 48}.get(name, 59), name
        assert one.false - one.other <= 1, name


def test_the_same_seed_plants_the_same_texts() -> None:
    first, again = list(planted(3, seed=5)), list(planted(3, seed=5))
    assert first == again
    assert first != list(planted(3, seed=6))
