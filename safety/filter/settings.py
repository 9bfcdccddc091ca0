"""What a run is asked to do: everything that decides its output, and so what a resumed run must share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from safety.filter import quality
from safety.filter.errors import Misuse
from safety.filter.quality import Form
from safety.filter.read import Limits

BROKEN = "broken"
LANGUAGE = "language"
TOXICITY = "toxicity"
OVERLAP = "overlap"
EXACT = "exact-duplicate"
NEAR = "near-duplicate"
PART_BYTES = 64 << 20
SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """`rules` are the names of all that are on, in the order in which they are asked. `rule_files` and
    `evaluation` are paths; `skip_broken` counts unreadable documents as removed instead of stopping.
    """

    rules: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    form: Form = field(default_factory=Form)
    languages: tuple[str, ...] = ()
    toxicity: float = 0.8
    mask_personal: bool = False
    skip_broken: bool = False
    rule_files: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    overlap_words: int = 13
    part_bytes: int = PART_BYTES
    licence: str = ""


def names(guards: Sequence[str]) -> tuple[str, ...]:
    """All rules in their order, where `guards` are those that streams share with the filter."""
    return (*quality.RULES, LANGUAGE, *guards, TOXICITY, OVERLAP, EXACT, NEAR)


def chosen(
    every: Sequence[str], only: Sequence[str], without: Sequence[str], needless: Sequence[str]
) -> tuple[str, ...]:
    """The rules that are on: `needless` are those that the settings give nothing to do.

    Misuse for a name that is none, and for one of `only` that has nothing to do.
    """
    unknown = [name for name in (*only, *without) if name not in every]
    if unknown:
        raise Misuse(f"no rule {', '.join(unknown)}; the rules are {', '.join(every)}")
    idle = [name for name in only if name in needless]
    if idle:
        raise Misuse(f"--only {', '.join(idle)} needs --language or --evaluation")
    return tuple(
        name for name in every if (not only or name in only) and name not in without and name not in needless
    )
