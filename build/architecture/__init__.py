"""From config.json to the description of a model: one adapter for each line of families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from build.architecture import bart, gemma3, gpt2, llama, t5
from build.architecture.parts import Architecture
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint
from build.errors import BadInput, Unsupported

Model = Architecture | EncoderDecoder


@dataclass(frozen=True)
class Adapter:
    """`view` presents a checkpoint's tensors under the names and in the shapes that `describe` gives."""

    describe: Callable[[Mapping[str, Any]], Model]
    view: Callable[[Checkpoint], Checkpoint]


_ADAPTERS: dict[str, Adapter] = {
    **dict.fromkeys(llama.FAMILIES, Adapter(llama.describe, llama.view)),
    **dict.fromkeys(gpt2.FAMILIES, Adapter(gpt2.describe, gpt2.view)),
    **dict.fromkeys(gemma3.FAMILIES, Adapter(gemma3.describe, gemma3.view)),
    **dict.fromkeys(bart.FAMILIES, Adapter(bart.describe, bart.view)),
    **dict.fromkeys(t5.FAMILIES, Adapter(t5.describe, t5.view)),
}

FAMILIES = tuple(_ADAPTERS)
# Near relatives of what is supported, and what keeps them apart.
_REFUSED = {
    "gemma": "it is not Gemma 3",
    "gemma2": "its attention scores and logits are capped, which the graphs do not do",
    "gemma3": "it sees images; a checkpoint of its language model alone is a gemma3_text",
}

_CHANGED = {
    "quantization_config": "the weights are quantised already: give the checkpoint that they were made from",
    "per_layer_config": "layers that differ from each other in size are not supported",
}


def describe(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a decoder's config.json; Unsupported names what cannot be built."""
    model = describe_model(config)
    if isinstance(model, EncoderDecoder):
        raise Unsupported(f"model family {model.family!r} is an encoder-decoder: this takes a decoder alone")
    return model


def describe_model(config: Mapping[str, Any]) -> Model:
    """As `describe`, for models of either kind."""
    try:
        return _adapter(config).describe(config)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise BadInput(f"config.json: is damaged: {type(error).__name__}: {error}") from error


def view(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as its architecture names and shapes it: what passes, dialects and reference take."""
    return _adapter(checkpoint.config).view(checkpoint)


def _adapter(config: Mapping[str, Any]) -> Adapter:
    family = str(config.get("model_type"))
    for key, what in _CHANGED.items():
        if config.get(key):
            raise Unsupported(f"config.json: {key}: {what}")
    if family in _REFUSED:
        raise Unsupported(f"model family {family!r} is not supported: {_REFUSED[family]}")
    if family not in _ADAPTERS:
        raise Unsupported(f"model family {family!r} is not supported: {', '.join(FAMILIES)} are")
    return _ADAPTERS[family]
