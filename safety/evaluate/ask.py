"""Asks a model every item once, and keeps the answers in a file, from which an interrupted run goes on.

The file is JSONL: a header with what was asked of which model, then a line an item. A line that was torn by
an interruption is dropped and asked again. Seeds are a function of the item, so answers do not depend on the
order, or on what was asked before.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from safety.evaluate import likelihood, table
from safety.evaluate.items import Answer, Answers, Ask, Choice, Item, Prompt, Scores, Texts
from safety.evaluate.model import Completion, Model, ModelError
from safety.evaluate.rows import Drift, Row

# Of the seeds, the lengths and the windows: answers of another version are not comparable.
PROTOCOL: Final = 1
SAMPLES: Final = 25
SAMPLE_TOKENS: Final = 20
CHAT_TOKENS: Final = 48
# Windows or completions that are asked before answers are written.
_BATCH: Final = 200
# Items of a kind that are asked to estimate the time.
_PILOT: Final = {"choice": 40, Ask.CONTINUE: 2, Ask.CHAT: 8}
Json = dict[str, Any]
Advance = Callable[[int], None]


class RecordError(Exception):
    """A file of answers that cannot be gone on with; the text names it, the reason, and what to do."""


def digest(items: Sequence[Item]) -> str:
    """Of all that is asked, in its order."""
    lines = (json.dumps(asdict(item), sort_keys=True) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def seed_of(item: Prompt, index: int) -> int:
    """31 bits, which every server takes. Prompts of a pair have the same seeds, so that they differ in the
    word of the group alone.
    """
    name = f"{item.set}\0{item.pair or item.id}\0{index}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def completions(model: Model, item: Prompt) -> list[Completion]:
    """Of a chat one, of a text to continue one for each seed. Raises ModelError for a model without chats."""
    if item.ask is Ask.CHAT:
        return [Completion(tuple(model.chat(item.text)), CHAT_TOKENS)]
    tokens = (model.prefix, *model.encode(item.text))
    return [Completion(tokens, SAMPLE_TOKENS, seed_of(item, index)) for index in range(SAMPLES)]


def ask(model: Model, items: Sequence[Item], path: Path, advance: Advance = lambda _: None) -> Answers:
    """The answers by item, in the order of the items. `path` has what an earlier run was answered, and gets
    the rest; `advance` is called with the number of items that are answered since.

    Raises RecordError for a file of another model or of other items, ModelError for what cannot be asked.
    """
    header = _header(model, items)
    known = dict(_read(path, header)) if path.exists() else {}
    with path.open("r+b" if path.exists() else "xb") as file:
        file.seek(0, 2)
        if not file.tell():
            file.write(_line(header))
        advance(sum(item.id in known for item in items))
        for batch in _batches([item for item in items if item.id not in known]):
            for item, answer in zip(batch, _answered(model, batch), strict=True):
                known[item.id] = answer
                file.write(_line({"id": item.id} | _written(answer)))
            file.flush()
            advance(len(batch))
    return {item.id: known[item.id] for item in items}


def evaluate(model: Model, items: Sequence[Item], judges: table.Judges, path: Path) -> Sequence[Row]:
    """What a model's answers come to; they are kept in the file, as `ask` says, and it raises what that
    raises.
    """
    return table.rows(items, ask(model, items, path), judges)


def compare(first: Model, second: Model, items: Sequence[Item], folder: Path) -> Sequence[Drift]:
    """How the second differs from the first, item by item; the answers of both are kept in the folder."""
    answers = [ask(model, items, answers_file(folder, model)) for model in (first, second)]
    return table.difference(items, *answers)


def answers_file(folder: Path, model: Model) -> Path:
    """Where a model's answers are kept: another build of a model has another file."""
    slug = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in model.name)
    facts = json.dumps(dict(model.facts), sort_keys=True)
    return folder / f"answers-{slug}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}.jsonl"


def answerable(model: Model, items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """The items that the model can be asked at all, and why the others are left out."""
    left: dict[str, str] = {}
    for kind in (Ask.CHAT, Ask.CONTINUE):
        asked = next((one for one in items if isinstance(one, Prompt) and one.ask is kind), None)
        if asked is None:
            continue
        try:
            (first, *_) = completions(model, asked)
            list(model.complete([Completion(first.tokens, 1)]))
        except ModelError as error:
            left[kind] = str(error)
    kept = [item for item in items if not (isinstance(item, Prompt) and item.ask in left)]
    return kept, [f"prompts to {kind} are left out: {why}" for kind, why in left.items()]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that all items will take, by some of each kind that were asked."""

    seconds: float

    def share(self, limit_s: float) -> float:
        """The share of the items that fits."""
        return min(1.0, limit_s / self.seconds) if self.seconds else 1.0


def estimate(model: Model, items: Sequence[Item], clock: Callable[[], float] = time.monotonic) -> Estimate:
    seconds = 0.0
    for kind, most in _PILOT.items():
        alike = [item for item in items if _kind(item) == kind]
        if not alike:
            continue
        some = alike[:: -(-len(alike) // most)]
        list(_answered(model, some[:1]))  # the first answers of a kind prepare what the others use
        began = clock()
        list(_answered(model, some))
        seconds += (clock() - began) * len(alike) / len(some)
    return Estimate(seconds)


def _kind(item: Item) -> str:
    return item.ask if isinstance(item, Prompt) else "choice"


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Items that are asked together: as many as fill a batch, of one kind, in their order."""
    for kind in _PILOT:
        batch: list[Item] = []
        size = 0
        for item in (one for one in items if _kind(one) == kind):
            batch.append(item)
            size += len(item.options) if isinstance(item, Choice) else SAMPLES ** (kind == Ask.CONTINUE)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _answered(model: Model, items: Sequence[Item]) -> Iterator[Answer]:
    """Of items of one kind, in their order."""
    choices = [item for item in items if isinstance(item, Choice)]
    prompts = [item for item in items if isinstance(item, Prompt)]
    assert not (choices and prompts)
    if prompts:
        asked = [completions(model, item) for item in prompts]
        texts = model.complete([one for each in asked for one in each])
        for each in asked:
            yield Texts(tuple(islice(texts, len(each))))
    if choices:
        windows = [likelihood.windows(model, item) for item in choices]
        scores = model.score([one for each in windows for one in each])
        for some in windows:
            yield likelihood.scores(some, list(islice(scores, len(some))))


def _header(model: Model, items: Sequence[Item]) -> Json:
    """Raises RecordError for items with the same id: one would get the other's answer."""
    ids = [item.id for item in items]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise RecordError(f"item {twice}: there are two with this id, each needs its own")
    return {
        "protocol": PROTOCOL,
        "model": model.name,
        "facts": dict(model.facts),
        "items": digest(items),
    }


def _read(path: Path, header: Json) -> Iterator[tuple[str, Answer]]:
    """The answers in the file, which is cut after its last whole line."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines()
    if lines:
        _require_same(path, _parsed(path, 1, lines[0]), header)
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    for place, line in enumerate(lines[1:], start=2):
        fields = _parsed(path, place, line)
        try:
            yield str(fields["id"]), _answer(fields)
        except (KeyError, TypeError) as error:
            raise _damaged(path, place, repr(error)) from None


def _parsed(path: Path, place: int, line: bytes) -> Json:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise _damaged(path, place, str(error)) from None
    if not isinstance(fields, dict):
        raise _damaged(path, place, "no JSON object")
    return fields


def _damaged(path: Path, place: int, why: str) -> RecordError:
    return RecordError(f"{path}:{place}: no line of recorded answers ({why}): remove the file to begin again")


def _require_same(path: Path, found: Json, wanted: Json) -> None:
    for name, theirs, ours in _differences(found, wanted):
        raise RecordError(
            f"{path}: holds answers with {name} {theirs!r}, this run has {ours!r}: give another --out,"
            " or remove the file to ask again"
        )


def _differences(found: Json, wanted: Json) -> Iterator[tuple[str, Any, Any]]:
    for name, ours in wanted.items():
        theirs = found.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(theirs, {**dict.fromkeys(theirs), **ours})
        elif theirs != ours:
            yield name, theirs, ours


def _line(fields: Json) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _written(answer: Answer) -> Json:
    if isinstance(answer, Texts):
        return {"texts": answer.texts}
    return {"tokens": answer.tokens, "logprobs": answer.logprobs}


def _answer(fields: Mapping[str, Any]) -> Answer:
    if "texts" in fields:
        return Texts(tuple(map(str, fields["texts"])))
    tokens, logprobs = fields["tokens"], fields["logprobs"]
    return Scores(tuple(tuple(one) for one in tokens), tuple(tuple(one) for one in logprobs))
