"""A file that holds a JSON object, as every source of Hugging Face has some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from build.errors import BadInput


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; BadInput when it is absent, damaged or another value."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is damaged or no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path}: must hold a JSON object")
    return value
