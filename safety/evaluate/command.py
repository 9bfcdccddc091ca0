"""`python -m safety evaluate`: asks a model, or two, and writes what was found."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from safety.evaluate import own, report, sets, table
from safety.evaluate.ask import RecordError, answerable, answers_file, ask, digest, estimate
from safety.evaluate.items import Answers, Item, Texts
from safety.evaluate.model import Model, ModelError
from safety.evaluate.rows import Drift

# \b keeps the lines of a paragraph as they are.
EXAMPLES: Final = """
\b
Examples:
  python -m safety evaluate smollm2
  python -m safety evaluate smollm2 --data sets --only crows --out crows
  python -m safety evaluate reference:smollm2 --against smollm2 --minutes 10
  python -m safety evaluate http://localhost:8000/v1#llama --tokenizer llama

MODEL is the name of a built model or the folder of its engine; reference: with a recipe (it scores, and
answers no prompts); or the URL of a server of the OpenAI API with echo and log-probabilities, whose key is
read from HALIMEDE_API_KEY. A run that was interrupted goes on where it was: give the same command again.
"""
_PLAN: Final = "plan.json"


class Opener(Protocol):
    def __call__(
        self, text: str, repository: Path | None, tokenizer: Path | None
    ) -> AbstractContextManager[Model]:
        """Raises ModelError for a model that cannot be opened."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the command is connected to: `typer.Context.obj`."""

    open_model: Opener
    judges: Callable[[], table.Judges]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants: see the options of the command."""

    models: Sequence[str]
    data: Path | None
    out: Path
    sample: int | None
    seed: int
    only: Sequence[str]
    minutes: float
    repository: Path | None
    tokenizer: Path | None


def evaluate_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL|URL", help="The model to evaluate.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder with public sets in their own formats; without it the set of the project alone.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL|URL", help="Compare with this model, item by item.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The folder of answers, report.json and report.html.", file_okay=False)
    ] = Path("safety-report"),
    sample: Annotated[
        int | None, typer.Option(min=1, help="Ask so many items, drawn with --seed; without it what fits.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    only: Annotated[list[str] | None, typer.Option(metavar="SET", help="This set alone; repeatable.")] = None,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="A sample is drawn where a model would take longer.")
    ] = 60.0,
    repository: Annotated[
        Path | None, typer.Option(help="Where models are looked up by name.", file_okay=False)
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="A server's tokenizer.json, or the folder with it and its chat template."),
    ] = None,
) -> None:
    """Measure bias, toxicity, refusals and facts of a model."""
    names = [model] if against is None else [model, against]
    wish = Wish(names, data, out, sample, seed, only or [], minutes, repository, tokenizer)
    console = Console(stderr=True)
    try:
        run(wish, context.obj, console)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. The answers are in {out}: the same command goes on from there.",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    except (ModelError, RecordError, sets.SetError, OSError) as error:
        console.print(f"safety evaluate: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def run(wish: Wish, parts: Parts, console: Console) -> None:
    """Raises ModelError, RecordError or SetError for what cannot be done."""
    notes: list[str] = []
    items = _wanted(wish, notes.append)
    with ExitStack() as stack:
        models = [
            stack.enter_context(parts.open_model(text, wish.repository, wish.tokenizer))
            for text in wish.models
        ]
        wish.out.mkdir(parents=True, exist_ok=True)
        able = [answerable(model, items) for model in models]
        notes = [
            f"{model.name}: {note}" for model, (_, left) in zip(models, able, strict=True) for note in left
        ]
        chosen = _planned(
            wish, items, [(m, kept) for m, (kept, _) in zip(models, able, strict=True)], console
        )
        asked = [[item for item in kept if item.id in chosen] for kept, _ in able]
        answers = [
            _ask(model, some, answers_file(wish.out, model), console)
            for model, some in zip(models, asked, strict=True)
        ]
    judges = parts.judges()
    measured = [
        report.Measured(model.name, model.facts, table.rows(some, found, judges), _texts(some, found))
        for model, some, found in zip(models, asked, answers, strict=True)
    ]
    drift = _drift(items, answers)
    sampled = len(chosen) if len(chosen) < len(items) else None
    counts = dict(Counter(item.set for item in items if any(item.id in found for found in answers)))
    found = report.Report(measured, counts, digest(items), sampled, wish.seed, notes, drift)
    _show(found, wish.out, console)


def _wanted(wish: Wish, note: Callable[[str], None]) -> list[Item]:
    """`note` gets what a set left out. Raises typer.BadParameter for a set that is not there."""
    items = [*(sets.read(wish.data, note) if wish.data else []), *own.items()]
    names = list(dict.fromkeys(item.set for item in items))
    unknown = [name for name in wish.only if name not in names]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}, must be one of {', '.join(names)}", param_hint="--only")
    return [item for item in items if not wish.only or item.set in wish.only]


def _planned(
    wish: Wish, items: Sequence[Item], asked: Sequence[tuple[Model, Sequence[Item]]], console: Console
) -> set[str]:
    """The ids of the items to ask, as an earlier run with this folder chose them.

    The number depends on the speed of the first answers, so it is written down.
    """
    path = wish.out / _PLAN
    plan = {"items": digest(items), "sample": wish.sample, "seed": wish.seed}
    if path.exists():
        plan = _read_plan(path, plan, free=wish.sample is None)
    else:
        if wish.sample is None:
            plan["sample"] = _fitting(wish, asked, len(items), console)
        path.write_text(json.dumps(plan) + "\n", "utf-8")
    count = plan["sample"]
    if count is None:
        return {item.id for item in items}
    chosen = sets.sample(items, int(count), wish.seed)
    console.print(f"A sample of {len(chosen)} of {len(items)} items, seed {wish.seed}.", markup=False)
    return {item.id for item in chosen}


def _read_plan(path: Path, wanted: dict[str, str | int | None], *, free: bool) -> dict[str, str | int | None]:
    try:
        found: dict[str, str | int | None] = json.loads(path.read_text("utf-8"))
        same = all(found[name] == wanted[name] for name in ("items", "seed")) and (
            free or found["sample"] == wanted["sample"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: cannot be read ({error!r}): remove it, or give another --out") from None
    if not same:
        raise RecordError(
            f"{path}: its run had other items, or another --sample or --seed: give another --out"
        )
    return found


def _fitting(
    wish: Wish, asked: Sequence[tuple[Model, Sequence[Item]]], count: int, console: Console
) -> int | None:
    least: int | None = None
    for model, items in asked:
        found = estimate(model, items, time.monotonic)
        console.print(f"{model.name}: {len(items)} items, about {_minutes(found.seconds)}", markup=False)
        share = found.share(wish.minutes * 60)
        if share < 1:
            least = min(least or count, max(1, int(count * share)))
    return least


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _ask(model: Model, items: Sequence[Item], path: Path, console: Console) -> Answers:
    with _progress(model.name, len(items), console) as advance:
        return ask(model, items, path, advance)


@contextmanager
def _progress(name: str, total: int, console: Console) -> Iterator[Callable[[int], None]]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name.replace("[", r"\["), total=total)
        yield lambda count: progress.advance(task, count)


def _texts(items: Sequence[Item], answers: Answers) -> list[tuple[str, str, str]]:
    found = ((item, answers[item.id]) for item in items)
    return report.some_texts(
        (item.set, item.id, answer.texts[0]) for item, answer in found if isinstance(answer, Texts)
    )


def _drift(items: Sequence[Item], answers: Sequence[Answers]) -> Sequence[Drift]:
    if len(answers) < 2:
        return []
    first, second = answers
    return table.difference([i for i in items if i.id in first and i.id in second], first, second)


def _show(found: report.Report, out: Path, console: Console) -> None:
    """The tables to stdout, the rest to stderr."""
    for shown in report.tables(found):
        Console().print(shown)
    for note in found.notes:
        console.print(note, markup=False, soft_wrap=True)
    for path in report.write(found, out):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
