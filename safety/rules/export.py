"""`python -m safety.rules.export OUT`: the classifier of alt-profanity-check as plain arrays.

Needs an environment of its own with alt-profanity-check, which brings scikit-learn and joblib, and typer.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

PACKAGE, VERSION = "alt-profanity-check", "1.9.1"
# What toxicity.py computes; a vectoriser with other settings would be read wrongly.
SETTINGS = {
    "analyzer": "word",
    "binary": False,
    "lowercase": True,
    "ngram_range": (1, 1),
    "norm": "l2",
    "preprocessor": None,
    "strip_accents": None,
    "sublinear_tf": False,
    "token_pattern": r"(?u)\b\w\w+\b",
    "tokenizer": None,
    "use_idf": True,
}


class ExportError(Exception):
    """A classifier that is missing or of another form; the text names the package or the setting."""


def arrays(vectorizer: Any, model: Any) -> Mapping[str, NDArray[Any]]:
    """The fields of Toxicity from a TfidfVectorizer and a CalibratedClassifierCV over linear machines.

    `words` are joined by line feeds, as UTF-8. Raises ExportError for a setting that Toxicity does not
    compute.
    """
    found = {**vectorizer.get_params(), "method": model.method}
    for name, value in {**SETTINGS, "method": "sigmoid"}.items():
        if found[name] != value:
            raise ExportError(f"{name} is {found[name]!r}, not {value!r}: toxicity.py does not compute it")
    # Stop words are not in the vocabulary, so they need no list.
    words = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    machines = [part.estimator for part in model.calibrated_classifiers_]
    sigmoids = [part.calibrators[0] for part in model.calibrated_classifiers_]
    return {
        "words": np.frombuffer("\n".join(words).encode(), np.uint8),
        "idf": np.asarray(vectorizer.idf_, np.float64),
        "coefficients": np.stack([machine.coef_[0] for machine in machines]),
        "intercepts": np.array([machine.intercept_[0] for machine in machines]),
        "slopes": np.array([sigmoid.a_ for sigmoid in sigmoids]),
        "offsets": np.array([sigmoid.b_ for sigmoid in sigmoids]),
    }


def _package() -> Any:
    # Its module names another version than its metadata.
    try:
        found = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        found = "missing"
    if found != VERSION:
        raise ExportError(f"{PACKAGE} is {found}; install {PACKAGE}=={VERSION} in an environment of its own")
    return importlib.import_module("profanity_check.profanity_check")


def export(out: Annotated[Path, typer.Argument(help="The .npz file to write.")]) -> None:
    """Write the arrays and print their SHA-256, which toxicity.py holds."""
    try:
        package = _package()
        fields = arrays(package.vectorizer, package.model)
        with out.open("wb") as file:
            np.savez_compressed(file, **fields)
    except (ExportError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{hashlib.sha256(out.read_bytes()).hexdigest()}  {out}")


if __name__ == "__main__":
    typer.run(export)
