"""The judge of a run, with the rules that streams share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from safety.filter import language
from safety.filter.judge import Judge, Tools
from safety.filter.overlap import SHORTEST, Evaluation, read_evaluation
from safety.filter.settings import OVERLAP, TOXICITY, Settings, names
from safety.rules import catalogue, custom
from safety.rules.mask import mask
from safety.rules.rule import Rule, RuleError
from safety.rules.toxicity import Toxicity


def guards(files: Sequence[Path]) -> list[Rule]:
    """The catalogue's rules, then those of TOML files. RuleError names the file and the rule."""
    found = list(catalogue.rules())
    for file in files:
        found += custom.load(file)
        repeated = [
            name for name, count in Counter(names([rule.name for rule in found])).items() if count > 1
        ]
        if repeated:
            raise RuleError(f"{file}: the name {repeated[0]!r} is taken: give the rule another one")
    return found


def judge(settings: Settings) -> Judge:
    """Made once in each process, since rules and tables are not sent between them."""
    evaluation = None
    if OVERLAP in settings.rules:
        texts = read_evaluation(map(Path, settings.evaluation))
        evaluation = Evaluation(texts, settings.overlap_words, min(SHORTEST, settings.overlap_words))
    return Judge(
        settings,
        Tools(
            guards=guards([Path(file) for file in settings.rule_files]),
            mask=mask,
            language=language.language_of,
            scores=Toxicity.load().scores if TOXICITY in settings.rules else None,
            evaluation=evaluation,
        ),
    )
