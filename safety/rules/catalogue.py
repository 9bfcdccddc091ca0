"""All rules that come with the kit, in a fixed order."""

from __future__ import annotations

from safety.rules.credentials import SECRETS
from safety.rules.personal import PERSONAL
from safety.rules.rule import Rule


def rules() -> tuple[Rule, ...]:
    """Personal data first, then secrets."""
    return (*PERSONAL, *SECRETS)
