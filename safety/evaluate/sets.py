"""Public sets of items, read from a folder in the file formats in which they are published."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from safety.evaluate.items import Ask, Choice, Item, Prompt

CROWS_PAIRS: Final = "crows-pairs"
WINOBIAS: Final = "winobias"
WINOGENDER: Final = "winogender"
BBQ: Final = "bbq"
STEREOSET: Final = "stereoset"

_WINOBIAS_FILE: Final = re.compile(r"(pro|anti)(_stereotyped)?_(?P<type>type[12])")
_WINOBIAS_LINE: Final = re.compile(r"(?P<number>\d+)\s+(?P<sentence>\S.*)")
_GENDERED: Final = re.compile(r"\b(?:he|she|him|her|his|hers|himself|herself)\b", re.IGNORECASE)
# The set has a few slips of the pen; files of two versions differ in most lines.
_MOST_SLIPS: Final = 0.1
_PRONOUN: Final = re.compile(r"\b(he|she|they|him|her|them|his|their|hers|theirs)\b", re.IGNORECASE)
_STEREOSET_LABELS: Final = ("stereotype", "anti-stereotype", "unrelated")
_ROLES: Final = {"woman": "f", "girl": "f", "man": "m", "boy": "m"}

Note = Callable[[str], None]
# A line of JSON with its file and number, for errors.
Line = tuple[str, Mapping[str, Any]]


class SetError(Exception):
    """A set that cannot be read; the text names the file, the line and the reason."""


def ignore(_note: str) -> None:
    """The default of `read`: no notes are kept."""


def read(folder: Path, note: Note = ignore) -> list[Item]:
    """The items of all files in the folder, by file name.

    `note` gets a line for each file whose format is unknown, and for each pair that is left out. Raises
    SetError for a file that breaks off its format, for two items with one id, and where there is no set.
    """
    items = [item for path in sorted(folder.iterdir()) if path.is_file() for item in read_file(path, note)]
    if not items:
        raise SetError(f"{folder}: has no set: needs a CSV, TSV, JSON, JSONL or text file of a known format")
    (name, count), *_ = Counter(item.id for item in items).most_common(1)
    if count > 1:
        raise SetError(f"{folder}: {count} items are called {name}: leave one copy of their file")
    return items


def read_file(path: Path, note: Note = ignore) -> list[Item]:
    """The items of one file; of two files of WinoBias the one of the sentences that fit a stereotype."""
    if _WINOBIAS_FILE.search(path.name):
        found: Iterator[Item] = _winobias(path, note)
    elif path.suffix in _READERS:
        found = _READERS[path.suffix](path, note)
    else:
        note(f"{path}: not read, the format is unknown")
        found = iter(())
    return list(found)


def sample(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """About `count` of the items, in their order: of each category of each set the same share.

    Every category keeps one at least. Items that are compared with one another stay together. The same
    items, count and seed give the same sample.
    """
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    units: dict[tuple[str, str], None] = {}
    for item in items:
        if (item.set, unit(item)) not in units:
            units[item.set, unit(item)] = None
            strata[item.set, item.category].append(unit(item))
    share = min(1.0, count / max(1, len(items)))
    chosen: set[tuple[str, str]] = set()
    for (name, category), some in strata.items():
        drawn = random.Random(f"{seed}/{name}/{category}").sample(some, max(1, round(share * len(some))))
        chosen.update((name, each) for each in drawn)
    return [item for item in items if (item.set, unit(item)) in chosen]


def unit(item: Item) -> str:
    """What a sample takes or leaves as a whole: items that are compared with one another share it."""
    pair = item.pair if isinstance(item, Prompt) else item.facts.get("unit", "")
    return pair or item.id


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, with file and number."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SetError(f"{path}:{line}: {error.reason}, must be UTF-8") from None


def _crows_pairs(path: Path, note: Note) -> Iterator[Choice]:
    """Nangia et al. 2020: the first option is the sentence that stereotypes more."""
    rows = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    needed = ("sent_more", "sent_less", "bias_type")
    if not {"sent_more", "sent_less"} <= set(rows.fieldnames or ()):
        note(f"{path}: not read, the format is unknown: its columns are not those of CrowS-Pairs")
        return
    try:
        for number, row in enumerate(rows):
            if any(not (row.get(name) or "").strip() for name in needed):
                raise SetError(f"{path}:{rows.line_num}: a row needs text in {', '.join(needed)}")
            options = (row["sent_more"].strip(), row["sent_less"].strip())
            facts = {"direction": row.get("stereo_antistereo") or "", "more": "0"}
            yield Choice(
                f"{CROWS_PAIRS}/{path.stem}/{number}", CROWS_PAIRS, row["bias_type"], "", options, facts
            )
    except csv.Error as error:
        raise SetError(f"{path}:{rows.line_num}: {error}") from None


def _winobias(path: Path, note: Note) -> Iterator[Choice]:
    """Zhao et al. 2018: the first option has the pronoun that fits the stereotype of the occupation."""
    found = _WINOBIAS_FILE.search(path.name)
    assert found is not None
    start, side = found.span(1)
    other = path.with_name(path.name[:start] + ("anti" if found[1] == "pro" else "pro") + path.name[side:])
    if not other.is_file():
        raise SetError(
            f"{path}: {other.name} is missing: sentences are compared with those of the other file"
        )
    if found[1] == "anti":
        return
    ours, theirs = list(_winobias_sentences(path)), list(_winobias_sentences(other))
    if [number for _, number, _ in ours] != [number for _, number, _ in theirs]:
        raise SetError(f"{path}: its {len(ours)} numbers are not the {len(theirs)} of {other.name}")
    slips = [
        f"{place}: left out, differs from {other.name} in more than pronouns"
        for (place, _, pro), (_, _, anti) in zip(ours, theirs, strict=True)
        if not _minimal(pro, anti)
    ]
    if len(slips) > _MOST_SLIPS * len(ours):
        raise SetError(f"{slips[0]}, as do {len(slips)} of {len(ours)}: take both files of one version")
    for slip in slips:
        note(slip)
    name = f"{WINOBIAS}/{path.name.replace(found[0], found['type'])}"
    for (_, number, pro), (_, _, anti) in zip(ours, theirs, strict=True):
        if _minimal(pro, anti):
            yield Choice(f"{name}/{number}", WINOBIAS, found["type"], "", (pro, anti), {"more": "0"})


def _winobias_sentences(path: Path) -> Iterator[tuple[str, str, str]]:
    """File and line, the number, and the sentence without its brackets."""
    for place, line in _lines(path):
        parts = _WINOBIAS_LINE.fullmatch(line)
        if parts is None or "[" not in line:
            raise SetError(f"{place}: must be a number and a sentence with [mentions], as WinoBias has them")
        yield place, parts["number"], re.sub(r"\s+", " ", re.sub(r"\[\s*|\s*\]", "", parts["sentence"]))


def _minimal(pro: str, anti: str) -> bool:
    return pro != anti and _GENDERED.sub("_", pro) == _GENDERED.sub("_", anti)


def _winogender(path: Path, note: Note) -> Iterator[Choice]:
    """Rudinger et al. 2018, asked as in lm-eval: whom does the pronoun mean, occupation or participant?"""
    (_, header), *rows = [(place, line.split("\t")) for place, line in _lines(path)] or [("", [""])]
    if header[0] == "occupation":
        return
    if header != ["sentid", "sentence"]:
        note(f"{path}: not read, the format is unknown: its columns are not those of WinoGender")
        return
    shares = _shares_of_women(path.parent)
    for place, row in rows:
        name = row[0].removesuffix(".txt").split(".")
        if len(row) != 2 or len(name) != 4 or name[2] not in ("0", "1"):
            raise SetError(f"{place}: must be occupation.participant.answer.gender.txt, a tab and a sentence")
        occupation, participant, answer, gender = name
        pronouns = _PRONOUN.findall(row[1])
        if len(pronouns) != 1:
            raise SetError(f"{place}: has {len(pronouns)} pronouns, must have one")
        facts = {"label": answer, "unit": f"{occupation}.{participant}.{answer}"}
        for source, women in shares.get(occupation, {}).items():
            facts[f"gotcha_{source}"] = _gotcha(women, gender, answer)
        context = f"{row[1]} ‘{pronouns[0].capitalize()}’ refers to the"
        options = (f" {occupation}", f" {participant}")
        yield Choice(f"{WINOGENDER}/{'.'.join(name)}", WINOGENDER, gender, context, options, facts)


def _shares_of_women(folder: Path) -> dict[str, dict[str, float]]:
    """Per cent of women in each occupation, by texts (bergsma) and by the labour statistics (bls)."""
    for path in sorted(folder.glob("*.tsv")):
        (_, header), *rows = [(place, line.split("\t")) for place, line in _lines(path)] or [("", [""])]
        if header[0] == "occupation":
            return {row[0]: _women(place, dict(zip(header, row, strict=False))) for place, row in rows}
    return {}


def _women(place: str, row: Mapping[str, str]) -> dict[str, float]:
    try:
        return {source: float(row[f"{source}_pct_female"]) for source in ("bergsma", "bls")}
    except (KeyError, ValueError):
        raise SetError(f"{place}: needs numbers in bergsma_pct_female and bls_pct_female") from None


def _gotcha(women: float, gender: str, answer: str) -> str:
    """Whether the occupation's usual gender misleads: it is meant and unusual, or usual and not meant."""
    if gender == "neutral":
        return ""
    usual = (gender == "female") == (women >= 50)
    return "yes" if usual == (answer == "1") else "no"


def _json_lines(path: Path, _note: Note) -> Iterator[Item]:
    rows = ((place, _object(place, line)) for place, line in _lines(path))
    first = next(rows, None)
    if first is None:
        return
    again = _chain(first, rows)
    yield from _bbq(path, again) if "question_polarity" in first[1] else _prompts(path, again)


def _chain(first: Line, rest: Iterator[Line]) -> Iterator[Line]:
    yield first
    yield from rest


def _object(place: str, line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise SetError(f"{place}: is no JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(found, dict):
        raise SetError(f"{place}: must be a JSON object")
    return found


def _bbq(path: Path, rows: Iterator[Line]) -> Iterator[Choice]:
    """Parrish et al. 2022, put as in lm-eval, with the set's own three answers."""
    for place, row in rows:
        try:
            yield _bbq_choice(path.stem, row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SetError(f"{place}: is no item of BBQ: {type(error).__name__} {error}") from None


def _bbq_choice(stem: str, row: Mapping[str, Any]) -> Choice:
    """`biased` is the answer that the stereotype gives: who is blamed, or who is not blamed and not the
    target; "" where the set does not say which.
    """
    groups = [_groups(row["answer_info"][f"ans{index}"]) for index in range(3)]
    (unknown,) = [index for index, found in enumerate(groups) if "unknown" in found[0]]
    target = _target({str(each).lower() for each in row["additional_metadata"]["stereotyped_groups"]}, groups)
    facts = {
        "label": str(("0", "1", "2").index(str(row["label"]))),
        "condition": ("ambig", "disambig")[("ambig", "disambig").index(row["context_condition"])],
        "polarity": ("neg", "nonneg")[("neg", "nonneg").index(row["question_polarity"])],
        "unknown": str(unknown),
        "target": "" if target is None else str(target),
        "biased": "",
        # Two contexts with two questions each are about the same people.
        "unit": f"{stem}/{int(row['example_id']) // 4}",
    }
    if target is not None:
        facts["biased"] = str(target if facts["polarity"] == "neg" else 3 - unknown - target)
    context = f"{row['context']}\n\nQ: {row['question']}\nA:"
    options = tuple(f" {row[f'ans{index}']}" for index in range(3))
    return Choice(f"{BBQ}/{stem}/{row['example_id']}", BBQ, str(row["category"]), context, options, facts)


def _groups(info: Sequence[str]) -> tuple[set[str], set[str]]:
    """The names of an answer's groups in full, and the parts of an intersection such as F-Black."""
    whole = {str(name).lower() for name in info}
    parts = set(re.split(r"[-_ ]", str(info[1]).lower()))
    return whole, parts | {_ROLES[name] for name in parts if name in _ROLES}


def _target(stereotyped: set[str], groups: Sequence[tuple[set[str], set[str]]]) -> int | None:
    """The one answer of a stereotyped group, by its full name or else by a part of it; None if none is."""
    for names in zip(*groups, strict=True):
        found = [index for index, each in enumerate(names) if each & stereotyped and "unknown" not in each]
        if len(found) == 1:
            return found[0]
    return None


def _stereoset(path: Path, note: Note) -> Iterator[Choice]:
    """Nadeem et al. 2021: the options are the stereotype, its opposite, and an unrelated one."""
    try:
        data = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise SetError(f"{path}:{error.lineno}: is no JSON: {error.msg}") from None
    tasks = data.get("data") if isinstance(data, dict) else None
    if not isinstance(tasks, dict) or not {"intrasentence", "intersentence"} & tasks.keys():
        note(f"{path}: not read, the format is unknown: it has no data of StereoSet")
        return
    for task in ("intrasentence", "intersentence"):
        for index, row in enumerate(tasks.get(task, [])):
            try:
                yield _stereoset_choice(task, row)
            except (KeyError, TypeError, ValueError) as error:
                reason = f"is no item of StereoSet: {type(error).__name__} {error}"
                raise SetError(f"{path}: data.{task}[{index}] {reason}") from None


def _stereoset_choice(task: str, row: Mapping[str, Any]) -> Choice:
    """Sentences of one task follow their context; those of the other have it in them, in place of BLANK."""
    sentences = {each["gold_label"]: str(each["sentence"]) for each in row["sentences"]}
    after = task == "intersentence"
    options = tuple((" " if after else "") + sentences[label] for label in _STEREOSET_LABELS)
    context = str(row["context"]) if after else ""
    facts = {"task": task, "target": str(row["target"])}
    return Choice(f"{STEREOSET}/{row['id']}", STEREOSET, str(row["bias_type"]), context, options, facts)


def _prompts(path: Path, rows: Iterator[Line]) -> Iterator[Prompt]:
    """A set of the file's name. `ask` is continue, the default, or chat; `pair` joins counterfactuals."""
    for number, (place, row) in enumerate(rows):
        text = row.get("prompt")
        if not isinstance(text, str) or not text.strip():
            raise SetError(f"{place}: prompt: {text!r}, must be a text")
        try:
            ask = Ask(row.get("ask", Ask.CONTINUE))
        except ValueError:
            raise SetError(f"{place}: ask: {row['ask']!r}, must be {' or '.join(Ask)}") from None
        category, group, pair = (str(row.get(name) or "") for name in ("category", "group", "pair"))
        yield Prompt(f"{path.name}/{number}", path.stem, category, text, ask, group, pair)


def _plain_prompts(path: Path, _note: Note) -> Iterator[Prompt]:
    return _prompts(path, ((place, {"prompt": line}) for place, line in _lines(path)))


_READERS: Final[Mapping[str, Callable[[Path, Note], Iterator[Item]]]] = {
    ".csv": _crows_pairs,
    ".tsv": _winogender,
    ".json": _stereoset,
    ".jsonl": _json_lines,
    ".txt": _plain_prompts,
}
