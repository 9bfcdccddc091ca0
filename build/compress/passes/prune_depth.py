"""Fewer layers: one after another the layer goes without which the texts are predicted best.

That is measured, never judged by how little a layer turns the stream: layer 28 of SmolLM2-135M turns it least
after a linear fit, and costs 30 % of perplexity with it. What the layer did is then made up for as far as a
linear map can (ReplaceMe, Shopkhoev et al. 2025, arXiv:2505.02819): the product back of the feed-forward
before it is fitted, by ridge least squares on its inputs, to what the layer added to the stream. That stays
if texts which the fit has not seen are predicted better with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Final

import numpy as np

from build.architecture import FAMILIES, completed, describe
from build.architecture.config_reader import FULL, SLIDING
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.compress.corpus import windows
from build.compress.cut import fixed, in_memory
from build.compress.least_squares import Moments, ridge
from build.compress.limits import require_flag, require_whole
from build.compress.loss import mean_loss
from build.compress.step import Cost, Kind, Tools
from build.errors import BadInput, Unsupported
from build.quantise import Floats, Ids
from build.reference.decoder import Decoder, final_hidden, head_weight
from build.reference.parts import Parts

KIND: Final = Kind.PRUNE
_LAYERS = "prune-depth: layers"
_POSITIONS = 512
_SHARES = 6  # of the windows one share is scored, one is held out, and four are fitted
_WINDOWS = 3 * _SHARES
# Shares of the mean of the inputs' squares; the best is taken by the loss of what is held out.
_STRENGTHS = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Options:
    """`layers` to remove; `refit` what is before them."""

    layers: int
    refit: bool = True

    def __post_init__(self) -> None:
        require_whole(_LAYERS, self.layers, 1)
        require_flag("prune-depth: refit", self.refit)


def require(checkpoint: Checkpoint, options: Options) -> None:
    """BadInput where no layer would be left; Unsupported for models whose layers depend on their number, and
    for a refit where the product back is normed.
    """
    architecture = describe(checkpoint.config)
    most = len(architecture.layers) - 1
    require_whole(_LAYERS, options.layers, 1, most, "one layer must be left")
    if completed(checkpoint.config).get("scale_attn_by_inverse_layer_idx"):
        raise Unsupported("config.json: scale_attn_by_inverse_layer_idx: layers cannot be renumbered")
    if options.refit and any(layer.ffn_output_norm for layer in architecture.layers):
        raise Unsupported(
            f"prune-depth: refit: {architecture.family} norms what its feed-forward gives: set refit = false"
        )


def cost(checkpoint: Checkpoint, options: Options) -> Cost:
    """Each removal runs half of the layers for each candidate; the streams of all are held."""
    architecture = describe(checkpoint.config)
    layers, tokens = len(architecture.layers), _WINDOWS // _SHARES * _POSITIONS
    layer = sum(map(prod, architecture.layers[0].tensors().values()))
    head = architecture.vocab_size * architecture.hidden_size
    scored = tokens * (layers**2 / 2 * layer + layers * head)
    tried = 1 + len(_STRENGTHS)
    fitted = tokens * layers * (4 + tried) * layer + tokens * tried * head if options.refit else 0
    streams = (layers + 8) * tokens * architecture.hidden_size
    return Cost(2.0 * options.layers * (scored + fitted), 4 * (streams + 2 * head + 4 * layer))


def run(checkpoint: Checkpoint, options: Options, tools: Tools) -> Checkpoint:
    """The checkpoint with so many layers fewer, renumbered; BadInput where the texts are too short."""
    architecture = describe(checkpoint.config)
    length = min(_POSITIONS, architecture.max_positions)
    ids = windows(checkpoint.tokenizer.json, tools.texts, _WINDOWS, length)
    texts = _Texts(ids)
    if options.refit:
        texts.require_refit()
    for _ in range(options.layers):
        checkpoint = _shorter(checkpoint, texts, options.refit, tools)
    return checkpoint


class _Texts:
    """Windows that no two purposes share."""

    def __init__(self, ids: Ids) -> None:
        at = np.arange(len(ids)) % _SHARES
        self.scored, self.held_out = ids[at == 0], ids[at == _SHARES // 2]
        self.fitted = ids[(at != 0) & (at != _SHARES // 2)]
        self._count = len(ids)

    def require_refit(self) -> None:
        least = _SHARES // 2 + 1
        if self._count < least:
            raise BadInput(
                f"prune-depth: texts: fill {self._count} windows, a refit needs {least}: give longer ones"
            )


def _shorter(checkpoint: Checkpoint, texts: _Texts, refit: bool, tools: Tools) -> Checkpoint:
    architecture = describe(checkpoint.config)
    losses = losses_without_each(
        checkpoint, architecture, texts.scored, tools.stage("depth", len(architecture.layers))
    )
    index = int(np.argmin(losses))
    short = without_layer(checkpoint, architecture, index)
    if not refit or index == 0:  # before the first layer there is no product to fit
        return short
    tried = 1 + len(_STRENGTHS)
    advance = tools.stage("refit", index + 1 + tried * (len(architecture.layers) - 1))
    return _best(
        [short, *_refitted(checkpoint, short, index, texts.fitted, advance)], texts.held_out, advance
    )


def losses_without_each(
    checkpoint: Checkpoint, architecture: Architecture, ids: Ids, advance: Callable[[], None]
) -> list[float]:
    """The mean loss of the model without its first layer, its second, and so on; advances after each layer.

    A stream leaves the whole model's before the layer that it does without, so nothing is run twice.
    """
    whole, streams = Decoder(Parts(checkpoint), architecture).embed(ids), list[Floats]()
    for layer in architecture.layers:
        model = Decoder(Parts(in_memory(checkpoint, layer.tensors())), architecture)
        streams = [*(model.layer(layer, stream) for stream in streams), whole]
        whole = model.layer(layer, whole)
        advance()
    model, head = Decoder(Parts(checkpoint), architecture), head_weight(checkpoint, architecture)
    return [mean_loss(model.norm(stream, architecture.final_norm), head, ids) for stream in streams]


def without_layer(checkpoint: Checkpoint, architecture: Architecture, index: int) -> Checkpoint:
    """The checkpoint without one layer; those behind it get the names of those before them."""
    kept = [layer for at, layer in enumerate(architecture.layers) if at != index]
    config = completed(checkpoint.config)
    names = FAMILIES[str(config["model_type"])].names
    config[names.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
    if "layer_types" in config:
        config["layer_types"] = [SLIDING if layer.attention.window else FULL for layer in kept]
    weights = dict(checkpoint.weights)
    for layer in architecture.layers:
        for name in layer.tensors():
            del weights[name]
    for layer, new in zip(kept, describe(config).layers, strict=True):
        for name, renamed in zip(layer.tensors(), new.tensors(), strict=True):
            weights[renamed] = checkpoint.weights[name]
    return replace(checkpoint, config=config, weights=weights)


def _refitted(
    checkpoint: Checkpoint, short: Checkpoint, index: int, ids: Ids, advance: Callable[[], None]
) -> list[Checkpoint]:
    """`short`, which lacks the layer of that index, with the product before it fitted, once a strength."""
    architecture = describe(checkpoint.config)
    before = architecture.layers[index - 1].ffn.outer
    moments = _added(checkpoint, architecture, index, ids, advance)
    found = []
    for strength in _STRENGTHS:
        change = ridge(moments.inputs, moments.targets, strength).T.astype(np.float32)
        names = (*before.parts, *before.biases)
        changes = (change[:, : before.columns], change[:, before.columns :].sum(axis=1))
        new = {n: fixed(short.weights[n].read() + by) for n, by in zip(names, changes, strict=False)}
        found.append(replace(short, weights={**short.weights, **new}))
    return found


def _added(
    checkpoint: Checkpoint, architecture: Architecture, index: int, ids: Ids, advance: Callable[[], None]
) -> Moments:
    """What the product before the layer reads, and what the layer adds to the stream.

    The next norm divides the stream by its size, so each row counts in proportion: the first token's, which
    is a thousand times as large, would else decide alone. A bias has an input of ones.
    """
    before, seen = architecture.layers[index - 1].ffn.outer, dict[str, Floats]()
    moments = Moments(before.columns + len(before.biases), architecture.hidden_size)
    model = Decoder(Parts(checkpoint, seen.__setitem__), architecture)
    stream = model.embed(ids)
    for layer in architecture.layers[:index]:
        stream = model.layer(layer, stream)
        advance()
    inputs = seen[before.parts[0]]
    after = model.layer(architecture.layers[index], stream)
    advance()
    share = 1 / np.sqrt(np.mean(after * after, axis=-1, keepdims=True))
    ones = np.ones((*inputs.shape[:-1], len(before.biases)), np.float32)
    rows = np.concatenate([inputs, ones], axis=-1) * share
    for window, target in zip(rows, (after - stream) * share, strict=True):
        moments.add(window, target)
    return moments


def _best(checkpoints: list[Checkpoint], ids: Ids, advance: Callable[[], None]) -> Checkpoint:
    losses = []
    for checkpoint in checkpoints:
        architecture = describe(checkpoint.config)
        hidden = final_hidden(checkpoint, architecture, ids, advance)
        losses.append(mean_loss(hidden, head_weight(checkpoint, architecture), ids))
    return checkpoints[int(np.argmin(losses))]
