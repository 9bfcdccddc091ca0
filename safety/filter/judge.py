"""A chunk of documents through the rules: which are kept, and which rule removes each of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from safety.filter.duplicates import BANDS, exact_keys, near_keys
from safety.filter.overlap import Evaluation
from safety.filter.quality import RULES, first_broken, shapes
from safety.filter.read import Broken, Document
from safety.filter.settings import BROKEN, EXACT, LANGUAGE, NEAR, OVERLAP, SAMPLES, TOXICITY, Settings
from safety.filter.words import U64, Words
from safety.rules.rule import Finding, Rule

_SAMPLE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Tools:
    """What the rules need. `guards` are all rules that streams share, those that are off as well: what they
    find is masked in samples. `scores` is None where toxicity is off, `evaluation` where overlap is.
    """

    guards: Sequence[Rule]
    mask: Callable[[str, Sequence[Finding]], str]
    language: Callable[[str], str]
    scores: Callable[[Sequence[str]], NDArray[np.float64]] | None = None
    evaluation: Evaluation | None = None


@dataclass(slots=True)
class Judged:
    """`kept` are the numbers of the documents that remain, in order, `keys` what the index asks of each:
    [kept, 1 + BANDS]. `changed` has the texts that were masked, `masked` how often by each rule. `samples`
    are the first few texts that each rule removed, masked and cut.
    """

    kept: list[int]
    keys: U64
    removed: dict[int, str]
    changed: dict[int, str] = field(default_factory=dict)
    masked: dict[int, Counter[str]] = field(default_factory=dict)
    samples: dict[int, str] = field(default_factory=dict)


class Judge:
    """The rules of a run, made ready once in each process."""

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self._settings = settings
        self._tools = tools
        self._form = tuple(name for name in settings.rules if name in RULES)
        self._on = frozenset(settings.rules)
        self._guards = [guard for guard in tools.guards if guard.name in self._on]

    def judge(self, documents: Sequence[Document | Broken]) -> Judged:
        removed = {i: BROKEN for i, document in enumerate(documents) if isinstance(document, Broken)}
        texts = {i: document.text for i, document in enumerate(documents) if isinstance(document, Document)}
        words = Words.of(list(texts.values()))
        words = self._drop(texts, words, self._formless(texts, words), removed)
        words = self._drop(texts, words, self._foreign(texts), removed)
        changed, masked, guarded = self._guarded(texts)
        words = self._drop(texts, words, guarded, removed)
        changed = {i: text for i, text in changed.items() if i in texts}
        if changed:
            texts |= changed
            words = Words.of(list(texts.values()))
        words = self._drop(texts, words, self._toxic(texts), removed)
        words = self._drop(texts, words, self._overlapping(texts, words), removed)
        judged = Judged(list(texts), self._keys(texts, words), removed)
        judged.changed = {i: text for i, text in changed.items() if i in texts}
        judged.masked = masked
        judged.samples = self._samples(documents, removed)
        return judged

    def sample(self, text: str) -> str:
        """The beginning of a text in one line, without anything that a rule finds."""
        findings = [finding for guard in self._tools.guards for finding in guard.find(text)]
        masked = " ".join(self._tools.mask(text, findings).split())
        short = len(masked) <= _SAMPLE_CHARACTERS
        return masked if short else masked[: _SAMPLE_CHARACTERS - 1] + "…"

    def _drop(
        self, texts: dict[int, str], words: Words, gone: dict[int, str], removed: dict[int, str]
    ) -> Words:
        if not gone:
            return words
        rest = [place for place, i in enumerate(texts) if i not in gone]
        removed |= gone
        for i in gone:
            del texts[i]
        return words.only(rest)

    def _formless(self, texts: dict[int, str], words: Words) -> dict[int, str]:
        if not self._form:
            return {}
        found = (
            (i, first_broken(shape, self._settings.form, self._form))
            for i, shape in zip(texts, shapes(list(texts.values()), words), strict=True)
        )
        return {i: name for i, name in found if name is not None}

    def _foreign(self, texts: dict[int, str]) -> dict[int, str]:
        if LANGUAGE not in self._on:
            return {}
        wanted, language = self._settings.languages, self._tools.language
        return {i: LANGUAGE for i, text in texts.items() if language(text) not in wanted}

    def _guarded(
        self, texts: dict[int, str]
    ) -> tuple[dict[int, str], dict[int, Counter[str]], dict[int, str]]:
        """The texts that were masked, how often by which rule, and what removes the others."""
        changed: dict[int, str] = {}
        masked: dict[int, Counter[str]] = {}
        gone: dict[int, str] = {}
        masking = self._settings.mask_personal
        for i, text in texts.items():
            findings: list[Finding] = []
            for guard in self._guards:
                if masking and guard.kind == "personal":
                    findings += guard.find(text)
                elif next(iter(guard.find(text)), None) is not None:
                    gone[i] = guard.name
                    break
            if findings and i not in gone:
                changed[i] = self._tools.mask(text, findings)
                masked[i] = Counter(finding.rule for finding in findings)
        return changed, masked, gone

    def _toxic(self, texts: dict[int, str]) -> dict[int, str]:
        if self._tools.scores is None or TOXICITY not in self._on or not texts:
            return {}
        scores = self._tools.scores(list(texts.values())).tolist()
        limit = self._settings.toxicity
        return {i: TOXICITY for i, score in zip(texts, scores, strict=True) if score >= limit}

    def _overlapping(self, texts: dict[int, str], words: Words) -> dict[int, str]:
        if self._tools.evaluation is None or OVERLAP not in self._on:
            return {}
        numbers = list(texts)
        return {numbers[place]: OVERLAP for place in self._tools.evaluation.find(words)}

    def _keys(self, texts: dict[int, str], words: Words) -> U64:
        keys = np.zeros((len(texts), 1 + BANDS), np.uint64)
        if EXACT in self._on:
            keys[:, 0] = exact_keys(list(texts.values()))
        if NEAR in self._on:
            keys[:, 1:] = near_keys(words)
        return keys

    def _samples(self, documents: Sequence[Document | Broken], removed: dict[int, str]) -> dict[int, str]:
        counts: Counter[str] = Counter()
        samples: dict[int, str] = {}
        for i in sorted(removed):
            document = documents[i]
            counts[removed[i]] += 1
            if counts[removed[i]] <= SAMPLES:
                text = document.reason if isinstance(document, Broken) else document.text
                samples[i] = self.sample(text)
        return samples
