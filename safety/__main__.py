"""`python -m safety`: evaluate a model, filter a corpus, measure the rules."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import typer

from safety.evaluate.command import EXAMPLES, Parts, evaluate_command
from safety.evaluate.model import Model
from safety.evaluate.sentiment import sentiment
from safety.evaluate.table import Judges
from safety.filter.command import filter_command
from safety.rules.judge_toxicity import classifier_command
from safety.rules.measure import rules_command
from safety.rules.toxicity import Toxicity
from safety.sources import REPOSITORY, Options, open_model

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None)
app.command("evaluate", epilog=EXAMPLES)(evaluate_command)
app.command("filter")(filter_command)
app.command("rules")(rules_command)
app.command("classifier")(classifier_command)


@app.callback()
def connect(context: typer.Context) -> None:
    context.obj = Parts(_opened, judges)


def judges() -> Judges:
    """Read when there is something to judge: it takes a second."""
    return Judges(Toxicity.load().scores, sentiment)


def _opened(text: str, repository: Path | None, tokenizer: Path | None) -> AbstractContextManager[Model]:
    return open_model(text, Options(repository or REPOSITORY, tokenizer))


if __name__ == "__main__":
    app()
