"""Files of a Hugging Face folder: how their JSON is read, and how missing ones are made."""

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


def conversion(source: str, folder: str, revision: str | None = None, weights: bool = True) -> str:
    """The command by which transformers makes a tokenizer.json, and with `weights` safetensors too.

    It converts other tokenizers, and the older format of weights, which may contain programs and is not read
    here.
    """
    named = f"'{source}'" + (f", revision='{revision}'" if revision else "")
    steps = ["import transformers as t"]
    if weights:
        steps.append(f"c = t.AutoConfig.from_pretrained({named})")
        steps.append(f"getattr(t, c.architectures[0]).from_pretrained({named}).save_pretrained('{folder}')")
    steps.append(f"t.AutoTokenizer.from_pretrained({named}).save_pretrained('{folder}')")
    install = f"pip install transformers{' torch' if weights else ''} sentencepiece protobuf"
    command = f'{install} && python -c "{"; ".join(steps)}"'
    return f"{'convert' if weights else 'make'} it in a separate environment: `{command}`"
