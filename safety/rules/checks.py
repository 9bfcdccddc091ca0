"""What a pattern cannot say of a match: check digits, lengths of countries, ranges, randomness.

Each check is given a text and a match in it from start to end. It answers where what is found
ends, which may be before the end of the match, or None if nothing is found. It reads the match and one
character on each side.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import phonenumbers
import regex

# Lengths of the SWIFT registry of IBANs.
_IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}

# First digits of card numbers (ISO/IEC 7812), from and to, and the lengths that their issuers publish.
_CARDS = (
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", (14,)),
    ("36", "36", (14,)),
    ("38", "39", (14,)),
    ("1800", "1800", (15,)),
    ("2131", "2131", (15,)),
    ("3528", "3589", (16,)),
    ("4", "4", (19, 16, 13)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("6011", "6011", (16,)),
    ("644", "659", (16,)),
    ("62", "62", (19, 18, 17, 16)),
    # Maestro's 12 and 13 digits are those of too many other numbers, and its cards ended in 2023.
    ("5018", "5018", (19, 16)),
    ("5020", "5020", (19, 16)),
    ("5038", "5038", (19, 16)),
    ("56", "58", (19, 16)),
    ("6304", "6304", (19, 16)),
    ("6759", "6763", (19, 16)),
)


# Of systemd, whose templates look like addresses: getty@tty1.service.
_UNITS = frozenset(
    ("automount", "device", "mount", "path", "scope", "service", "slice", "socket", "swap", "target", "timer")
)


def email(text: str, start: int, end: int) -> int | None:
    """The domain ends in letters; a full stop, or what follows it, may not be part of the address."""
    at = text.index("@", start, end)
    last = text.rfind(".", at, end)
    # In "write to a@b.org.1" the address ends before the last full stop, in "a@b.org--" before the hyphens.
    while last > at:
        top = text[last + 1 : end].rstrip("-")
        if top.isalpha() and 2 <= len(top) <= 24:
            return None if top in _UNITS else last + 1 + len(top)
        end, last = last, text.rfind(".", at, last)
    return None


def luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812, by the doubled digits from the right."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(int(digit) for digit in digits[-1::-2])) % 10 == 0


def card(text: str, start: int, end: int) -> int | None:
    """The longest card number at the start of a run of digits: its issuer's length, and the check digit."""
    ends = [place + 1 for place in range(start, end) if text[place].isdecimal()]
    digits = "".join(text[place - 1] for place in ends)
    for length in _card_lengths(digits):
        if length > len(digits) or not _ends(text, ends[length - 1]):
            continue
        grouped = _GROUPS.fullmatch(text, start, ends[length - 1])
        if grouped and luhn(digits[:length]) and len(set(digits[:length])) > 1:
            return ends[length - 1]
    return None


# Four digits first, groups of at least three, one kind of separator.
_GROUPS = regex.compile(r"[0-9]+|[0-9]{4}([ \u00a0\u202f-])[0-9]{3,6}(?:\1[0-9]{3,6}){1,3}")


def _card_lengths(digits: str) -> tuple[int, ...]:
    for first, last, lengths in _CARDS:
        if first <= digits[: len(first)] <= last:
            return lengths
    return ()


def iban(text: str, start: int, end: int) -> int | None:
    """ISO 13616: the length of the country, and the remainder 1 modulo 97."""
    length = _IBAN_LENGTHS.get(text[start : start + 2])
    ends = [place + 1 for place in range(start, end) if text[place].isalnum()]
    if length is None or length > len(ends) or not _ends(text, ends[length - 1]):
        return None
    number = "".join(text[place - 1] for place in ends[:length])
    value = int("".join(str(int(character, 36)) for character in number[4:] + number[:4]))
    return ends[length - 1] if value % 97 == 1 else None


def _ends(text: str, end: int) -> bool:
    return end == len(text) or not (text[end].isascii() and text[end].isalnum())


def social_security(text: str, start: int, end: int) -> int | None:
    """Without the numbers that are never given, and the two that advertisements made famous."""
    area, group, serial = text[start:end].split("-")
    never = area in {"000", "666"} or area >= "900" or group == "00" or serial == "0000"
    return None if never or text[start:end] in {"078-05-1120", "219-09-9999"} else end


def address4(text: str, start: int, end: int) -> int | None:
    """Of one host on the internet. A version of four numbers may look the same."""
    try:
        address = ipaddress.IPv4Address(text[start:end])
    except ValueError:
        return None
    return end if address.is_global and not address.is_multicast else None


def address6(text: str, start: int, end: int) -> int | None:
    try:
        return end if ipaddress.IPv6Address(text[start:end]).is_global else None
    except ValueError:
        return None


# How numbers are written in their own country. A bare run of ten digits may be anything, so it is none here.
_NATIONAL = {
    "US": regex.compile(r"(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}"),
    "GB": regex.compile(r"\(?0[1-9]\d{1,4}\)?(?:[ -]?\d{3,8}|[ -]\d{3,4}[ -]\d{3,4})"),
    # Not in the form of a social security number or of a postal code of the US.
    "DE": regex.compile(
        r"(?!\d{3}-\d\d-\d{4}$|\d{5}-\d{4}$)"
        r"(?:\(0[1-9]\d{1,4}\) ?|0[1-9]\d{1,4}[ /-]{1,3})\d{2,8}(?:[ -]?\d{2,6}){0,3}"
    ),
    # Not bytes, of which each begins with 0.
    "FR": regex.compile(r"0[1-9](?!(?:[ .-]0\d){4})(?:[ .-]\d\d){4}"),
}
_EXTENSION = regex.compile(r" ?(?:x|ext\.? ?)\d+$")
# A point after a country's code is how registrars of domains write a number.
_DECIMAL = regex.compile(r"00\d*\.\d+|\+\d{4,}\.\d+")
_SPACES = str.maketrans("\u00a0\u202f", "  ")
# No number is shorter.
_PHONE_DIGITS = 7


def phone(text: str, start: int, end: int) -> int | None:
    """The longest number at the start of the match that a country's plan has. After a plus sign its length
    has to be possible; a number that is written as in its own country has to be one that is given.
    """
    for last in _phone_ends(text, start, end):
        number = _EXTENSION.sub("", text[start:last].translate(_SPACES))
        if _DECIMAL.fullmatch(number):
            found = False
        elif number.startswith(("+", "(+")):
            digits = sum(map(str.isdecimal, number))
            found = digits >= 9 and _planned(number, None, phonenumbers.is_possible_number)
        elif number.startswith("00"):
            found = _planned("+" + number[2:], None, phonenumbers.is_valid_number)
        else:
            found = any(
                form.fullmatch(number) and _planned(number, land, phonenumbers.is_valid_number)
                for land, form in _NATIONAL.items()
            )
        if found:
            return last
    return None


def _phone_ends(text: str, start: int, end: int) -> Iterator[int]:
    """From the last on, each place after a digit that no digit or letter follows."""
    for last in range(end, start + _PHONE_DIGITS, -1):
        if text[last - 1].isdecimal() and _ends(text, last):
            yield last


def _planned(number: str, land: str | None, judged: Callable[[Any], bool]) -> bool:
    try:
        return bool(judged(phonenumbers.parse(number, land)))
    except phonenumbers.NumberParseException:
        return False


def entropy(text: str) -> float:
    """Shannon's, in bits a character, of the characters' own frequencies."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def varied(text: str, start: int, end: int) -> int | None:
    """Letters and digits as varied as in a drawn key; words joined by hyphens have no digits between."""
    value = text[start:end]
    mixed = any(letter.isalpha() for letter in value) and any(digit.isdecimal() for digit in value)
    return end if mixed and entropy(value) >= 3.0 else None


# Values that stand where a secret would.
# A real password may hold any of these signs, and one in a URL writes most of them as %XX.
_PLACEHOLDER = regex.compile(
    r"(?i)^(?:<.*>|\{.*\}|\[.*\]|\*+|\$\w+|%\w)$|\$[{(]|\{\{|%\(|\.{3}"
    r"|^(?:x{3,}|pass(?:word|wd)?|pwd?|secret|changeme|example|test|user|token|key)$"
    r"|your|example|placeholder|insert|xxxx"
)


def password(text: str, start: int, end: int) -> int | None:
    """Not a placeholder: `${PASSWORD}`, `<password>`, `xxx`, `password` itself."""
    return None if _PLACEHOLDER.search(text[start:end]) else end


def model_key(text: str, start: int, end: int) -> int | None:
    """A hyphen and words after `sk` are a name, of a class in a style sheet say, unless a vendor's mark is
    there.
    """
    marked = regex.match(r"sk-(?:proj|svcacct|admin|ant|or-v1)-", text, pos=start, endpos=end)
    return varied(text, start, end) if marked else drawn(text, start, end)


def drawn(text: str, start: int, end: int) -> int | None:
    """As varied as what a generator writes: digits, small and capital letters, or many hexadecimal digits.

    Of 16 characters drawn from the 62 letters and digits 94 in a hundred have these three kinds, of 32
    996 in a thousand.
    """
    value = text[start:end]
    if password(text, start, end) is None or entropy(value) < 3.0:
        return None
    if regex.fullmatch(r"[0-9a-f]{32,}|[0-9A-F]{32,}", value):
        return varied(text, start, end)
    kinds = (r"[0-9]", r"[a-z]", r"[A-Z]")
    return end if entropy(value) >= 3.5 and all(regex.search(kind, value) for kind in kinds) else None


def assigned(text: str, start: int, end: int) -> int | None:
    """Random, and not a placeholder."""
    return None if password(text, start, end) is None else varied(text, start, end)


def token(text: str, start: int, end: int) -> int | None:
    """A JSON Web Token (RFC 7519): its header is JSON and names an algorithm."""
    head = text[start:end].split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError):
        return None
    return end if isinstance(header, dict) and "alg" in header else None
