"""Compares a build with the same source as transformers reads it, which shares no code with the build.

This is the one module of the build that needs torch and transformers (the extra `test`); it is imported only
where a build is to be checked. What is served is compared: token ids and chats as the server's own program
encodes them, the manifest's settings for generation, and the logits of the reference that the engine has been
measured against.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from build import verify
from build.architecture import Model
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint
from build.errors import BadInput, BuildError
from build.manifest import Json
from build.quantise import Floats
from build.verify import Text

_SERVER = Path(__file__).resolve().parents[1] / "server"
# Text longer than every window and every threshold of a scaling, unless that takes too long on a CPU.
_MOST_POSITIONS = 4096
_BEYOND = 32
# Of the largest logit: both compute in float32, in another order.
_TOLERANCE = 1e-3
_PIECE = 64
STEPS = 4
_TEXTS = (
    "The quick brown fox jumps over the lazy dog, 1234567890 times.",
    "def f(x):\n    return {'a': x**2}  # ok?\n\n\tif True:\r\n",
    "Zażółć gęślą jaźń · 你好,世界 · Привет · مرحبا · 🙂👩‍👩‍👧 · e\u0301",
    "I'll  we'VE   don't\n\n\n  100000 <b>3.14</b>",
)
_TURNS = (("user", "Hi!"), ("assistant", " Hello.\n"), ("user", "  What is 2 + 2?\n\nSay it.  "))
_CHATS = (_TURNS[:1], _TURNS, (("system", "Be brief."), *_TURNS), (("system", "Be brief."), *_TURNS[:1]))


def compare(
    source: str,
    checkpoint: Checkpoint,
    model: Model,
    manifest: Json,
    folder: Path,
    advance: Callable[[], None],
) -> Json:
    """Compares the engine in `folder`, which has this manifest; `advance` is called `STEPS` times.

    Returns, for the manifest, what it was compared with, how much, and the largest difference of a logit.
    BuildError names the first difference: of a text, a chat, a setting or a logit.
    """
    theirs = _Transformers(source, model)
    texts = _compare_texts(theirs, manifest, folder)
    advance()
    chats = _compare_chats(theirs, manifest, folder)
    advance()
    settings = _compare_settings(theirs, manifest["generation"], checkpoint)
    advance()
    positions, error = _compare_logits(theirs, checkpoint, model)
    advance()
    return {
        "by": f"transformers {transformers.__version__}",
        "texts": texts,
        "chats": chats,
        "settings": settings,
        "positions": positions,
        "max_logit_error": round(error, 6),
    }


class _Transformers:
    """The source, opened by transformers' own loaders."""

    def __init__(self, source: str, model: Model) -> None:
        kind = (
            transformers.AutoModelForSeq2SeqLM
            if isinstance(model, EncoderDecoder)
            else transformers.AutoModelForCausalLM
        )
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        place, options = _place(source)
        # From a GGUF file it does not read how text is cut into words, and reads only one end of a sequence.
        self.reads_all = "gguf_file" not in options
        try:
            # transformers warns about optional packages, and its progress bars would overwrite ours.
            with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, **options)
                self.model: Any = kind.from_pretrained(place, dtype=torch.float32, **options).eval()
        except Exception as error:  # loaders raise errors of any kind
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise BuildError(f"check: transformers cannot load {source}: {problem}") from error

    def logits(self, text: Text) -> Floats:
        """[positions, vocab] of a text of one window."""
        inputs = {"input_ids": torch.tensor(text.inputs)}
        if text.sources is not None:
            inputs = {"input_ids": torch.tensor(text.sources), "decoder_input_ids": torch.tensor(text.inputs)}
        with torch.inference_mode():
            found: Floats = self.model(**inputs).logits[0].numpy()
        return found


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """The source as transformers' loaders take it: a place and options."""
    if source.startswith("package:"):
        return _gguf(_packaged(source.removeprefix("package:").partition("@")[0]))
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return _gguf(path)
    if path.is_dir():
        return str(path), {}
    name, _, revision = source.partition("@")
    return name, {"revision": revision} if revision else {}


def _gguf(path: Path) -> tuple[str, dict[str, Any]]:
    return str(path.parent), {"gguf_file": path.name}


def _packaged(name: str) -> Path:
    files = [file for file in metadata.distribution(name).files or [] if file.name.endswith(".gguf")]
    if len(files) != 1:
        raise BadInput(f"check: package {name} has its GGUF file in parts, which transformers does not read")
    return Path(str(files[0].locate()))


def _compare_texts(theirs: _Transformers, manifest: Json, folder: Path) -> int:
    rows = manifest["model"].get("source_vocab_size", manifest["model"]["vocab_size"])
    tokens = [token for token, index in theirs.tokenizer.get_added_vocab().items() if index < rows]
    around = [[f"{token}", f"a {token} b{token}{token}c", f"x{token}\n"] for token in tokens]
    prefix, texts = manifest["prefix"], [text for forms in around for text in forms]
    texts += _TEXTS if theirs.reads_all else ()
    ours = _served(folder, [{"text_input": text} for text in texts])
    for text, found in zip(texts, ours, strict=True):
        _require_same_ids(f"text {text!r}", found["ids"], theirs.tokenizer(prefix + text)["input_ids"])
    return len(texts)


def _compare_chats(theirs: _Transformers, manifest: Json, folder: Path) -> int:
    if manifest["task"] != "chat":
        return 0
    tokens = "".join(theirs.tokenizer.get_added_vocab())
    quoted = [(role, f" {content}{tokens} ") for role, content in _TURNS]
    chats = [[{"role": role, "content": content} for role, content in chat] for chat in (*_CHATS, quoted)]
    for chat, found in zip(chats, _served(folder, [{"messages": chat} for chat in chats]), strict=True):
        name = f"chat {json.dumps(chat)}"
        try:
            text = theirs.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises errors of any kind
            if "refused" not in found:
                raise BuildError(f"check: {name}: transformers refuses it ({error}), we do not") from error
            continue
        if found.get("rendered") != text:
            problem = (
                f"renders as {found.get('rendered', found.get('refused'))!r}, with transformers as {text!r}"
            )
            raise BuildError(f"check: {name} {problem}")
        # Tokens in a message are its text here, and control tokens to transformers.
        if theirs.reads_all and chat != chats[-1]:
            ids = theirs.tokenizer(text, add_special_tokens=False)["input_ids"]
            _require_same_ids(name, found["ids"], ids)
    return len(chats)


def _require_same_ids(name: str, ours: Sequence[int], theirs: Sequence[int]) -> None:
    if list(ours) == list(theirs):
        return
    pairs = zip([*ours, None], [*theirs, None], strict=False)
    at = next(place for place, (own, other) in enumerate(pairs) if own != other)
    shown = f"{list(ours[at : at + 4])}, transformers has {list(theirs[at : at + 4])}"
    raise BuildError(
        f"check: {name} is {len(ours)} token ids, with transformers {len(theirs)}: from place {at} on {shown}"
    )


def _served(folder: Path, inputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How the server encodes the inputs: `ids` and for a chat `rendered`, or why it is `refused`."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.prompts.reader", str(folder)],
        input="".join(f"{json.dumps(entry)}\n" for entry in inputs),
        env={**os.environ, "PYTHONPATH": str(_SERVER)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"check: the server cannot read the engine: {done.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _compare_settings(theirs: _Transformers, ours: Mapping[str, Any], checkpoint: Checkpoint) -> int:
    """Compares the manifest's settings with those that transformers' `generate` would take.

    A task's settings are left out: transformers does not apply them.
    """
    if not theirs.reads_all:
        return 0
    tables = (checkpoint.config.get("task_specific_params") or {}).values()
    of_tasks = {name for table in tables for name in table}
    wanted = {name: value for name, value in _settings(theirs).items() if name not in of_tasks}
    for name, value in wanted.items():
        if ours[name] != value:
            raise BuildError(
                f"check: generation: {name} is {ours[name]!r}, with transformers it is {value!r}"
            )
    return len(wanted)


def _settings(theirs: _Transformers) -> dict[str, Any]:
    config = theirs.model.generation_config
    defaults = transformers.GenerationConfig._get_default_generation_params()  # noqa: SLF001  no other way

    def value(name: str) -> Any:
        found = getattr(config, name)
        return defaults.get(name) if found is None else found

    wanted: dict[str, Any] = {"repetition_penalty": value("repetition_penalty") or 1.0}
    wanted |= {name: value(name) for name in ("num_beams", "length_penalty", "no_repeat_ngram_size")}
    eos = config.eos_token_id
    if eos is not None:
        wanted["eos_token_ids"] = eos if isinstance(eos, list) else [eos]
    if value("do_sample"):
        wanted |= {name: value(name) for name in ("temperature", "top_p")}
        wanted["top_k"] = max(value("top_k"), 0)
        wanted["min_p"] = value("min_p") or 0.0
    else:
        wanted["temperature"] = 0.0
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        wanted[name] = getattr(config, name)
    return wanted


def _compare_logits(theirs: _Transformers, checkpoint: Checkpoint, model: Model) -> tuple[int, float]:
    """How many positions, and the largest difference of a logit; BuildError beyond the tolerance."""
    if isinstance(model, EncoderDecoder):
        text = verify.english(checkpoint, model, 8 * _BEYOND)
    else:
        # Positions that pass every window, and where a scaling of the rotation was trained to its end.
        windows = [layer.attention.window or 0 for layer in model.layers]
        length = min(model.max_positions, _MOST_POSITIONS, max(4 * _BEYOND, *windows) + _BEYOND)
        ids = verify.passage_ids(checkpoint.tokenizer.json, 1, length)
        text = Text(None, ids, ids[:, 1:])
    text = Text(text.sources if text.sources is None else text.sources[:1], text.inputs[:1], text.labels[:1])
    lesson = verify.learn(checkpoint, model, text, lambda: None)
    logits = theirs.logits(text)
    limit, largest = _TOLERANCE * float(np.abs(logits).max()), 0.0
    for start in range(0, len(logits), _PIECE):
        ours = lesson.expected(0, slice(start, start + _PIECE))
        errors = np.abs(ours - logits[start : start + _PIECE, : ours.shape[1]])
        if not float(errors.max()) <= limit:  # a NaN too
            place, token = np.argwhere(~(errors <= limit))[0]
            values = f"{ours[place, token]:.4f}, with transformers it is {logits[start + place, token]:.4f}"
            raise BuildError(
                f"check: the logit of token {token} at position {start + place} is {values}: the build"
                " computes another model"
            )
        largest = max(largest, float(errors.max()))
    return len(logits), largest
