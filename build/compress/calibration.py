"""What the products of a model read, on texts that a pass may see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from build.architecture import Model
from build.architecture.parts import Architecture
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint
from build.compress.products import products
from build.compress.step import Cost
from build.errors import BadInput
from build.generation import decoder_start
from build.quantise import Ids
from build.reference import decoder, encoder_decoder
from build.reference.parts import Observe
from build.token_table import load_tokenizer

POSITIONS = 512
_TEXT = Path(__file__).with_name("calibration.txt")


def calibration_ids(tokenizer_json: bytes, max_positions: int) -> Ids:
    """One window [1, positions] of the built-in text."""
    return calibration_windows(tokenizer_json, max_positions)[:1]


def calibration_windows(tokenizer_json: bytes, max_positions: int) -> Ids:
    """The built-in text in windows [count, positions]; an incomplete last window is dropped."""
    ids = load_tokenizer(tokenizer_json).encode(_TEXT.read_text(encoding="utf-8")).ids
    length = min(POSITIONS, max_positions, len(ids))
    count = len(ids) // length
    return np.array(ids[: count * length], np.int64).reshape(count, length)


def require_windows(count: int) -> None:
    """BadInput for an option `windows` below 1."""
    if count < 1:
        raise BadInput(f"windows: {count}, must be at least 1")


def windows(texts: Sequence[str], tokenizer_json: bytes, max_positions: int, count: int) -> Ids:
    """At most `count` windows [count, positions], spread evenly over the texts, each a prompt as in serving.

    BadInput where no text fills a window.
    """
    tokenizer, length = load_tokenizer(tokenizer_json), min(POSITIONS, max_positions)
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()
    encoded = tokenizer.encode("\n\n".join(texts))
    found = [each.ids for each in (encoded, *encoded.overflowing) if len(each.ids) == length]
    if not found:
        raise BadInput(f"texts: {len(encoded.ids)} tokens, must be at least {length}: give more text")
    chosen = np.unique(np.arange(count) * len(found) // count)
    return np.array([found[index] for index in chosen], np.int64)


def observe_inputs(
    checkpoint: Checkpoint,
    model: Model,
    texts: Sequence[str],
    count: int,
    advance: Callable[[], None],
    observe: Observe,
) -> None:
    """Reads `count` windows; `observe` gets the name of each product's first part with the inputs
    [..., columns] of all windows, `advance` is called after each layer.

    An encoder-decoder answers each window with that window.
    """
    json = checkpoint.tokenizer.json
    if isinstance(model, Architecture):
        ids = windows(texts, json, model.max_positions, count)
        hidden = decoder.final_hidden(checkpoint, model, ids, advance, observe)
    else:
        targets = _targets(checkpoint, model, texts, count)
        sources = windows(texts, json, model.encoder.max_positions, count)[: len(targets)]
        targets = targets[: len(sources)]
        hidden = encoder_decoder.final_hidden(checkpoint, model, sources, targets, advance, observe)
    observe(model.head.parts[0], hidden)


def _targets(checkpoint: Checkpoint, model: EncoderDecoder, texts: Sequence[str], count: int) -> Ids:
    """What a decoder reads when it gives these windows as answers."""
    files = checkpoint.tokenizer
    labels = windows(texts, files.target or files.json, model.decoder.max_positions, count)
    return np.concatenate([np.full((len(labels), 1), decoder_start(checkpoint)), labels[:, :-1]], axis=1)


def reading_cost(model: Model, count: int) -> Cost:
    """Of reading so many windows: each product once a token, and the inputs of one layer."""
    tokens = count * min(POSITIONS, model.max_positions)
    made = list(products(model))[:-1]
    widest = max(product.projection.columns + sum(product.projection.rows) for product in made)
    return Cost(float(tokens * sum(product.weights for product in made)), 8 * tokens * widest)
