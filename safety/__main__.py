"""`python -m safety`: evaluate a model, filter a corpus."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

if __name__ == "__main__":
    app()
