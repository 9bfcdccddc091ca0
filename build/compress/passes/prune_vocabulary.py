"""Fewer tokens: rows of the embedding and the head go, and tokenizer.json is written anew without them.

A model for one language or domain has many tokens that its texts never have. SmolLM2-135M has a fifth of its
weights in the embedding. Every text can still be written: what is missing is spelled with shorter tokens.
That is dear, since the model has hardly seen such spellings: each further token costs about 6 nats. So the
tokens that stay are those with the largest expected counts, half by the texts, half by the tokenizer's own
ranks, of which the count falls by Zipf's law. Logits of kept tokens do not change, nor do the blocks of a
source that `carry` takes over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from build.architecture import Model, completed, describe_model
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint
from build.compress.cut import taken_rows
from build.compress.limits import require_share, require_whole
from build.compress.step import Cost, Kind, Tools
from build.compress.vocabulary import Vocabulary, processor_ids, vocabulary, without_others
from build.errors import Unsupported
from build.quantise import Ids
from build.token_table import load_tokenizer
from build.tokenizer_fit import fitted

KIND: Final = Kind.PRUNE
_KEEP = "prune-vocabulary: keep"
Json = dict[str, Any]
# A chat begins each message with one of these, which the template does not name.
_ROLES = ("system", "user", "assistant", "tool")
_TAGS = re.compile(r"\{[{%#].*?[}%#]\}", re.DOTALL)
_LITERALS = re.compile(r"""(['"])(.*?)\1""", re.DOTALL)
_SIZES = ("vocab_size", "decoder_vocab_size")
_NAMES_IDS = re.compile(r"\w*_token_ids?")
# Ids that are never chosen: one that is gone cannot be.
_NEVER_CHOSEN = ("suppress_tokens", "begin_suppress_tokens")
_BAD_WORDS = "bad_words_ids"
_UNREAD = ("sequence_bias", "forced_decoder_ids")


@dataclass(frozen=True)
class Options:
    """`keep`: the tokens, and so the rows of the embedding, that stay. `domain`: the share of what will be
    written that is like the texts; the rest is like what the tokenizer was trained on. With 1 all tokens of
    the texts come first, by their count.
    """

    keep: int
    domain: float = 0.5

    def __post_init__(self) -> None:
        require_whole(_KEEP, self.keep, 1)
        require_share("prune-vocabulary: domain", self.domain)


def require(checkpoint: Checkpoint, options: Options) -> None:
    """BadInput where `keep` is out of reach; Unsupported for vocabularies that cannot be cut."""
    _Plan(checkpoint, options)


def cost(checkpoint: Checkpoint, _options: Options) -> Cost:
    """No arithmetic; the tables that are read whole, and the rows that are taken."""
    model = describe_model(checkpoint.config)
    sizes = model.tensors()
    largest = max(int(np.prod(sizes[name])) for name in _tables(model))
    return Cost(operations=0.0, memory=2 * 4 * largest)


def run(checkpoint: Checkpoint, options: Options, tools: Tools) -> Checkpoint:
    """The checkpoint with `keep` tokens; each keeps its place among the others."""
    plan = _Plan(checkpoint, options)
    counts = _counts(plan.tokenizer_json, tools)
    order = _by_frequency(plan.vocabulary.ranked, counts, options.domain)
    kept = sorted(plan.vocabulary.filled(plan.least, order, options.keep))
    new = {old: index for index, old in enumerate(kept)}
    rows = np.array(kept, np.intp)
    tables = {name: taken_rows(checkpoint.weights[name], rows) for name in _tables(plan.model)}
    sizes = {key: options.keep for key in _SIZES if completed(checkpoint.config).get(key) is not None}
    return replace(
        checkpoint,
        config=_renumbered(checkpoint.config, new) | sizes,
        generation=_renumbered(checkpoint.generation, new),
        weights={**checkpoint.weights, **tables},
        tokenizer=replace(checkpoint.tokenizer, json=without_others(plan.tokenizer_json, new)),
    )


class _Plan:
    """What must stay, and whether `keep` has room for it and tokens for the rest."""

    model: Model
    tokenizer_json: bytes
    vocabulary: Vocabulary
    least: set[int]

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        self.model = describe_model(checkpoint.config)
        _refuse_two(checkpoint, self.model)
        for settings, file in ((checkpoint.config, "config"), (checkpoint.generation, "generation_config")):
            _refuse_unread(settings, file)
        self.tokenizer_json = fitted(checkpoint.tokenizer.json, self.model.vocab_size)
        self.vocabulary = vocabulary(self.tokenizer_json)
        named = _named_ids(checkpoint, self.model.vocab_size) | processor_ids(self.tokenizer_json)
        spoken = _encoded(self.tokenizer_json, _template_texts(checkpoint))
        self.least = self.vocabulary.closed({*self.vocabulary.required, *named, *spoken})
        _require_room(options.keep, len(self.least), len({*self.vocabulary.ids.values(), *self.least}))


def _refuse_two(checkpoint: Checkpoint, model: Model) -> None:
    two = isinstance(model, EncoderDecoder) and model.encoder.vocab_size != model.decoder.vocab_size
    if two or checkpoint.tokenizer.target is not None:
        raise Unsupported(
            f"prune-vocabulary: {model.family} has a tokenizer for sources and one for answers: only models"
            " that share one are supported"
        )


def _refuse_unread(settings: Mapping[str, Any], file: str) -> None:
    for key in _UNREAD:
        if settings.get(key):
            raise Unsupported(f"{file}.json: {key}: names ids in a form that cannot be renumbered: remove it")


def _require_room(keep: int, least: int, most: int) -> None:
    why = (
        "bytes or single characters, special and added tokens, and what the chat template and the settings"
        " name all stay"
    )
    require_whole(_KEEP, keep, least, why=why)
    require_whole(_KEEP, keep, 1, most, "there are no more tokens")


def _named_ids(checkpoint: Checkpoint, size: int) -> set[int]:
    """Ids under keys such as `eos_token_id` that the model has."""
    found: list[Any] = []
    for settings in (checkpoint.config, checkpoint.generation):
        for key, value in settings.items():
            if _NAMES_IDS.fullmatch(key):
                found += value if isinstance(value, list) else [value]
    return {index for index in found if _is_id(index) and 0 <= index < size}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _template_texts(checkpoint: Checkpoint) -> Iterator[str]:
    """What a chat template writes: its texts and the literals of its code."""
    files = checkpoint.tokenizer
    yield from files.special.values()
    if files.chat_template is not None:
        yield from _ROLES
        yield from _TAGS.split(files.chat_template)
        for literal in _LITERALS.finditer(files.chat_template):
            yield literal[2].replace("\\n", "\n")


def _encoded(tokenizer_json: bytes, texts: Iterable[str]) -> Iterator[int]:
    tokenizer = load_tokenizer(tokenizer_json)
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        yield from encoding.ids


def _by_frequency(ranked: Sequence[int], counts: Ids, domain: float) -> list[int]:
    """All ids, those first whose expected count is largest: a mixture of the texts' and Zipf's law."""
    ids = np.array(ranked)
    by_rank = 1 / np.arange(1, len(ids) + 1)
    expected = domain * counts[ids] / max(1, counts.sum()) + (1 - domain) * by_rank / by_rank.sum()
    order: list[int] = ids[np.argsort(-expected, kind="stable")].tolist()
    return order


def _counts(tokenizer_json: bytes, tools: Tools) -> Ids:
    """How often each id is in the texts."""
    tokenizer = load_tokenizer(tokenizer_json)
    counts = np.zeros(max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1, np.int64)
    advance = tools.stage("vocabulary", len(tools.texts))
    for text in tools.texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        counts += np.bincount(np.array(ids, np.int64), minlength=len(counts))
        advance()
    return counts


def _tables(model: Model) -> list[str]:
    """The tensors with a row for each token; a tied head is the embedding itself."""
    embeddings = (
        [model.encoder.embedding, model.decoder.embedding]
        if isinstance(model, EncoderDecoder)
        else [model.embedding]
    )
    return list(dict.fromkeys([*embeddings, *model.head.parts, *model.head.biases]))


def _renumbered(settings: Mapping[str, Any], new: Mapping[int, int]) -> Json:
    """Settings that name new ids; one that the model never had is gone from them."""
    changes: dict[str, Callable[[Any], Any]] = dict.fromkeys(_NEVER_CHOSEN, lambda ids: _known(ids, new))
    changes[_BAD_WORDS] = lambda words: [_known(w, new) for w in words or [] if new.keys() >= set(w)]
    changed = dict(settings)
    for key, value in settings.items():
        if _NAMES_IDS.fullmatch(key):
            changed[key] = _known(value, new) if isinstance(value, list) else new.get(value)
        elif key in changes and value:
            changed[key] = changes[key](value)
    return changed


def _known(ids: Sequence[int], new: Mapping[int, int]) -> list[int]:
    return [new[index] for index in ids if index in new]
