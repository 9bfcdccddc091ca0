"""From config.json to the description of a model.

Each line of families has a module: what it reads of config.json, and how its checkpoints store the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from build.architecture import bart, gemma3, gpt2, llama, t5
from build.architecture.family import Family
from build.architecture.parts import Architecture
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint
from build.errors import BadInput, Unsupported

Model = Architecture | EncoderDecoder


class _Adapter(Protocol):
    """The module of a line of families."""

    @property
    def FAMILIES(self) -> Mapping[str, Family]:  # noqa: N802
        """Each `model_type` of the line."""

    def describe(self, config: Mapping[str, Any]) -> Model:
        """The model of a config.json; raises Unsupported or BadInput for what cannot be built."""

    def view(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint's tensors under the names and in the shapes that `describe` gives."""


_LINES: tuple[_Adapter, ...] = (llama, gemma3, gpt2, bart, t5)
_ADAPTERS = {family: line for line in _LINES for family in line.FAMILIES}
FAMILIES = {family: declared for line in _LINES for family, declared in line.FAMILIES.items()}
# Near relatives of what is supported, and why they are not.
_REFUSED = {
    "gemma": "it is not Gemma 3",
    "gemma2": "its attention scores and logits are capped, which the graphs do not do",
    "gemma3": "it sees images; a checkpoint of its language model alone is a gemma3_text",
}

_CHANGED = {
    "quantization_config": "the weights are quantised already: give the checkpoint that they were made from",
    "per_layer_config": "layers that differ from each other in size are not supported",
}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every key that its family's adapter reads; an unknown family's config is unchanged."""
    family = FAMILIES.get(str(config.get("model_type")))
    return family.completed(config) if family else dict(config)


def describe(config: Mapping[str, Any]) -> Architecture:
    """The decoder that a config.json describes; Unsupported names what cannot be built."""
    model = describe_model(config)
    if isinstance(model, EncoderDecoder):
        raise Unsupported(
            f"config.json: model_type: {model.family!r} is an encoder-decoder, must be a decoder"
        )
    return model


def describe_model(config: Mapping[str, Any]) -> Model:
    """The decoder or encoder-decoder that a config.json describes; Unsupported names what cannot be built."""
    try:
        return _adapter(config).describe(config)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise BadInput(f"config.json: is damaged: {type(error).__name__}: {error}") from error


def layers(model: Model) -> int:
    """Layers of all stacks: the steps of a stage of progress that goes through the model."""
    if isinstance(model, Architecture):
        return len(model.layers)
    return len(model.encoder.layers) + len(model.decoder.layers)


def view(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as its description names and shapes it: what passes, dialects and reference take."""
    return _adapter(checkpoint.config).view(checkpoint)


def _adapter(config: Mapping[str, Any]) -> _Adapter:
    family = str(config.get("model_type"))
    for key, what in _CHANGED.items():
        if config.get(key):
            raise Unsupported(f"config.json: {key}: {what}")
    if family in _REFUSED:
        raise Unsupported(f"config.json: model_type: {family!r} is not supported: {_REFUSED[family]}")
    if family not in _ADAPTERS:
        raise Unsupported(f"config.json: model_type: {family!r} is not supported: {', '.join(FAMILIES)} are")
    return _ADAPTERS[family]
