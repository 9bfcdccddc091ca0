"""Texts with planted data for the measurement of rules: by faker's providers, and from vendors' formats."""

from __future__ import annotations

import base64
import importlib
import ipaddress
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any


class MissingPackage(Exception):
    """A package that only the measurement needs; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A text in which the characters `start` to `end` are what the rule of that name has to find; a decoy
    has no rule, and nothing in it is to be found.
    """

    rule: str
    text: str
    start: int
    end: int


_LOCALES = {
    "phone": ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES"),
    "iban": ("de_DE", "en_GB", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL"),
    "email": ("en_US", "de_DE", "fr_FR"),
}
# As the vendors' pages and their published scanners describe them.
_FORMATS = {
    "aws_access_key": (r"AKIA[A-Z2-7]{16}", r"ASIA[A-Z2-7]{16}"),
    "github_token": (r"gh[pousr]_[A-Za-z0-9]{36}", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    "gitlab_token": (r"glpat-[A-Za-z0-9_\-]{20}", r"gldt-[A-Za-z0-9_\-]{20}", r"glrt-[A-Za-z0-9_\-]{20}"),
    "slack_token": (
        r"xoxb-[0-9]{11,13}-[0-9]{11,13}-[A-Za-z0-9]{24}",
        r"xapp-1-A[A-Z0-9]{10}-[0-9]{13}-[a-f0-9]{64}",
    ),
    "slack_webhook": (r"https://hooks\.slack\.com/services/T[A-Z0-9]{8,10}/B[A-Z0-9]{8,10}/[A-Za-z0-9]{24}",),
    "stripe_key": (r"sk_live_[A-Za-z0-9]{24}", r"rk_test_[A-Za-z0-9]{99}", r"whsec_[A-Za-z0-9]{32}"),
    "google_key": (r"AIza[A-Za-z0-9_\-]{35}", r"GOCSPX-[A-Za-z0-9_\-]{28}"),
    "model_key": (r"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}", r"sk-ant-api03-[A-Za-z0-9_\-]{93}AA"),
    "private_key": (r"-----BEGIN (RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE KEY-----",),
}
_ASSIGNMENTS = ('api_key = "{}"', '"client_secret": "{}",', "DB_PASSWORD='{}'", 'auth_token: "{}"')
# Fakers' providers of what looks like a secret or a number of a person, and is none.
_DECOYS = (
    *("uuid4", "isbn13", "isbn10", "ean13", "md5", "sha1", "sha256", "mac_address"),
    *("ipv4_private", "user_agent", "file_path", "uri", "license_plate", "latitude", "postcode", "bban"),
    *("slug", "doi", "vin"),
)
_UNQUOTED = ("API_KEY={}", "export CLIENT_SECRET={}", "auth_token: {}", "aws_secret_access_key = {}")


def package(name: str) -> Any:
    """Raises MissingPackage."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingPackage(f"the measurement of rules needs {name}: pip install faker rstr") from None


def planted(samples: int, seed: int) -> Iterator[Planted]:
    """For each rule `samples` texts, and as many decoys; the same seed gives the same texts with the same
    versions of the packages. Raises MissingPackage.
    """
    faker, rstr = package("faker"), package("rstr")
    draw = random.Random(seed)
    english = faker.Faker("en_US", seed=seed)
    english.seed_instance(seed)
    for rule, makers in _makers(faker, rstr.Rstr(draw), english, draw).items():
        for place in range(samples):
            yield _inside(rule, str(makers[place % len(makers)]()), english)


def _inside(rule: str, value: str, english: Any) -> Planted:
    """After one of faker's sentences and before another, as a list, a quotation or a last word has it."""
    before, after = english.sentence(), english.sentence()
    left, right = english.random_element(((" ", " "), (": ", ". "), (' "', '" '), (" (", ") "), ("\n", "\n")))
    text = before[:-1] + left + value + right + after
    start = len(before) - 1 + len(left)
    return Planted(rule, text, start, start + len(value))


Maker = Callable[[], object]
# Else faker's dates end with the day of the measurement, and no seed repeats them.
_UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
_ROUTED = ipaddress.ip_network("2000::/3")


def _makers(faker: Any, strings: Any, english: Any, draw: random.Random) -> dict[str, list[Maker]]:
    lands = {land: faker.Faker(land) for lands in _LOCALES.values() for land in lands}
    for land in lands.values():
        land.seed_instance(draw.randrange(2**32))
    makers: dict[str, list[Maker]] = {
        "email": [lands[land].email for land in _LOCALES["email"]],
        "phone": [lands[land].phone_number for land in _LOCALES["phone"]],
        "credit_card": [english.credit_card_number],
        "iban": [lands[land].iban for land in _LOCALES["iban"]],
        "us_ssn": [english.ssn],
        "ipv4": [english.ipv4_public],
        "ipv6": [partial(_public, english)],
        "jwt": [partial(_token, english, draw)],
        "url_password": [partial(_url, english)],
        "assigned_secret": [partial(_assignment, strings, form) for form in _ASSIGNMENTS],
        "unquoted_secret": [partial(_assignment, strings, form) for form in _UNQUOTED],
    }
    for rule, formats in _FORMATS.items():
        makers[rule] = [partial(strings.xeger, form) for form in formats]
    makers[""] = [
        *(getattr(english, name) for name in _DECOYS),
        *(partial(getattr(english, name), end_datetime=_UNTIL) for name in ("date", "iso8601")),
    ]
    return makers


def _public(english: Any) -> str:
    while True:
        address = str(english.ipv6())
        if ipaddress.ip_address(address).is_global and ipaddress.ip_address(address) in _ROUTED:
            return address


def _token(english: Any, draw: random.Random) -> str:
    parts = (
        json.dumps({"alg": "HS256", "typ": "JWT"}).encode(),
        json.dumps(
            {"sub": english.uuid4(), "name": english.name(), "iat": draw.randrange(2**30, 2**31)}
        ).encode(),
        draw.randbytes(32),
    )
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _url(english: Any) -> str:
    word = english.password(length=12, special_chars=False)
    return f"postgresql://{english.user_name()}:{word}@{english.domain_name()}/{english.word()}"


def _assignment(strings: Any, form: str) -> str:
    return form.format(strings.xeger(r"[A-Za-z0-9]{32}"))
