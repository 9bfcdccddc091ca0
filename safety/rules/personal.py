"""The rules for personal data: addresses, numbers of phones, cards, accounts and persons."""

from __future__ import annotations

from safety.rules import checks
from safety.rules.patterns import Pattern

# Every repetition is possessive: an attempt reads each character once and never goes back.
# Pages keep the groups of a number together with spaces that do not break.
_SPACE = r" \u00a0\u202f"
# Latin letters with accents too; not those of Chinese, say, which go on from the text to the address.
_LOCAL = r"A-Za-z0-9_%+\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_LABEL = r"[A-Za-z0-9][A-Za-z0-9-]{0,40}+"

PERSONAL = (
    Pattern(
        "email",
        "personal",
        rf"(?<![{_LOCAL}.-])[{_LOCAL}][{_LOCAL}.'-]{{0,63}}+@{_LABEL}(?:\.{_LABEL}){{1,7}}+(?![A-Za-z0-9@])",
        checks.email,
        "@",
    ),
    Pattern(
        "phone",
        "personal",
        # How one begins is asked first: a page of digits costs no checks.
        rf"(?<![A-Za-z0-9.+/_=-])(?=\(?+\+|00[1-9]|\(?+0[1-9]|(?:1[{_SPACE}.-])?+\(?+[2-9][0-9]{{2}})"
        rf"(?:\+|\(\+?+)?+[0-9](?:[{_SPACE}()./-]{{0,3}}+[0-9]){{6,17}}+"
        r"(?: {0,1}+(?:x|ext\.?+ {0,1}+)[0-9]{1,6}+)?+",
        checks.phone,
    ),
    # Not the decimals of a number: one in a hundred of sixteen passes for a card.
    Pattern(
        "credit_card", "personal", rf"(?<![A-Za-z0-9.-])[1-6](?:[{_SPACE}-]?+[0-9]){{11,18}}+", checks.card
    ),
    Pattern(
        "iban",
        "personal",
        rf"(?<![A-Za-z0-9])[A-Z]{{2}}[0-9]{{2}}(?:[{_SPACE}]?+[A-Z0-9]){{11,30}}+",
        checks.iban,
    ),
    Pattern(
        "us_ssn",
        "personal",
        r"(?<![A-Za-z0-9-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![A-Za-z0-9-])",
        checks.social_security,
        "-",
    ),
    Pattern(
        "ipv4",
        "personal",
        r"(?<![A-Za-z0-9.])[0-9]{1,3}+(?:\.[0-9]{1,3}+){3}(?![A-Za-z0-9]|\.[0-9])",
        checks.address4,
        ".",
    ),
    # 2000::/3 is all that is routed.
    Pattern(
        "ipv6",
        "personal",
        r"(?<![A-Za-z0-9:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}+){2,7}+(?![A-Za-z0-9:])",
        checks.address6,
        ":",
    ),
)
