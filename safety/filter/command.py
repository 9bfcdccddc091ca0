"""`python -m safety filter IN… OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from safety.filter import language
from safety.filter import tools as prepared
from safety.filter.errors import FilterError, Misuse
from safety.filter.overlap import LENGTH, evaluation_files
from safety.filter.pipeline import run, sources_of
from safety.filter.quality import Form
from safety.filter.read import Format, Limits, Split
from safety.filter.report import Tally
from safety.filter.screen import progress
from safety.filter.settings import BROKEN, LANGUAGE, OVERLAP, Settings, chosen, names
from safety.filter.workers import parallel
from safety.rules.rule import RuleError
from safety.rules.toxicity import WeightsError


def filter_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN... OUT", show_default=False, help="Files or folders, then the folder to write."
        ),
    ],
    file_format: Annotated[
        Format, typer.Option("--format", help="What the files are; auto goes by their names.")
    ] = Format.AUTO,
    field: Annotated[str, typer.Option(help="The field of JSONL, the column of Parquet files.")] = "text",
    documents: Annotated[Split, typer.Option(help="What a document of a text file is.")] = Split.PARAGRAPHS,
    longest: Annotated[int, typer.Option(min=1, max=1 << 26, help="Bytes that a document may have.")] = 1
    << 20,
    broken: Annotated[
        str, typer.Option(metavar="stop|remove", help="At a document that cannot be read.")
    ] = "stop",
    only: Annotated[
        list[str] | None, typer.Option(help="Only this rule (repeatable).", show_default=False)
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Not this rule (repeatable).", show_default=False)
    ] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="A TOML file of your rules (repeatable).", show_default=False)
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option(
            "--language", help="Keep only this language: en, de, … (repeatable).", show_default=False
        ),
    ] = None,
    minimum_words: Annotated[int, typer.Option(min=0, help="Words that a document has at least.")] = 10,
    maximum_words: Annotated[int, typer.Option(min=1, help="Words that a document has at most.")] = 100_000,
    toxicity: Annotated[float, typer.Option(min=0, max=1, help="Remove from this score on.")] = 0.8,
    personal: Annotated[
        str,
        typer.Option(
            metavar="remove|mask", help="Documents with personal data: remove them, or mask what is found."
        ),
    ] = "remove",
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Texts that no document may share 13 words in a row with (repeatable).", show_default=False
        ),
    ] = None,
    overlap_words: Annotated[
        int, typer.Option(min=2, max=100, help="Words in a row that are an overlap.")
    ] = LENGTH,
    licence: Annotated[str, typer.Option(help="Of the corpus, for the data card.")] = "",
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes; the output is the same for any number.")
    ] = 2,
) -> None:
    """Filters a corpus: text, JSONL and Parquet files to a folder with kept-NNNNN.jsonl, report.json,
    report.md and datacard.md.

    Examples:

      python -m safety filter corpus/ filtered --language en --evaluation eval/

      python -m safety filter web.jsonl.d/ more.parquet filtered --field content --personal mask

      python -m safety filter notes.txt filtered --documents lines --only exact-duplicate

    A run that was broken off goes on when the same command is given again. The originals are only read.
    Exit codes: 0 done, 1 bad input or no space, 2 wrong use, 130 after Ctrl-C.
    """
    console = Console(stderr=True, highlight=False)
    try:
        _one_of("--broken", broken, ("stop", "remove"))
        _one_of("--personal", personal, ("remove", "mask"))
        evaluations = tuple(map(str, evaluation_files(evaluation or [])))
        settings = Settings(
            rules=_rules(only or [], without or [], rules or [], languages or [], evaluations),
            limits=Limits(documents, field, longest),
            form=Form(minimum_words, maximum_words),
            languages=language.known(tuple(languages or [])),
            toxicity=toxicity,
            mask_personal=personal == "mask",
            skip_broken=broken == "remove",
            rule_files=tuple(map(str, rules or [])),
            evaluation=evaluations,
            overlap_words=overlap_words,
            licence=licence,
        )
        tally = _filtered(settings, paths, file_format, workers, console)
    except (FilterError, RuleError, WeightsError) as error:
        console.print(f"[red]error[/red]: {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, Misuse) else 1) from error
    except KeyboardInterrupt as error:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(130) from error
    Console(highlight=False).print(_table(tally, settings))


def _one_of(option: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(values)}", param_hint=option)


def _rules(
    only: list[str], without: list[str], files: list[Path], languages: list[str], evaluation: tuple[str, ...]
) -> tuple[str, ...]:
    every = names([guard.name for guard in prepared.guards(files)])
    needless = [name for name, given in ((LANGUAGE, languages), (OVERLAP, evaluation)) if not given]
    return chosen(every, only, without, needless)


def _filtered(settings: Settings, paths: list[Path], form: Format, workers: int, console: Console) -> Tally:
    if len(paths) < 2:
        raise typer.BadParameter("give what to read and the folder to write", param_hint="IN... OUT")
    *inputs, out = paths
    sources = sources_of(inputs, out, form)
    judge = prepared.judge(settings)
    with progress(console) as show:
        return run(settings, sources, out, judge, parallel(settings, prepared.judge, workers), show)


def _table(tally: Tally, settings: Settings) -> Table:
    table = Table(
        "removed by", "documents", "of all", title=f"{tally.kept} of {tally.documents} documents kept"
    )
    for rule in (BROKEN, *settings.rules):
        count = tally.removed[rule].documents if rule in tally.removed else 0
        table.add_row(rule, f"{count}", f"{100 * count / max(tally.documents, 1):.2f} %")
    return table
