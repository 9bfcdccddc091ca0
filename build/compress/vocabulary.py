"""Which tokens a tokenizer.json can lose, and the file without them.

What is left of it encodes every text that it encoded before, and a text of whose tokens none was lost has the
same tokens as before. For BPE (Sennrich et al. 2016, arXiv:1508.07909) both follow from one rule: a token is
kept with the two parts that its last merge joins. Its merges are then all there, in their order, and no merge
that is gone would have come between. For Unigram (Kudo 2018, arXiv:1804.10959) the best way to cut a text is
still the best of fewer ways.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from build.errors import Unsupported
from build.sources.tokenizer_json import SPACE, Json, encoded
from build.token_table import load_tokenizer

Pair = tuple[str, str]
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")


@dataclass(frozen=True)
class Vocabulary:
    """`ids` of each token; `parts`, the ids that a token needs; `required`, ids without which a text is lost;
    `ranked`, all ids, those first that were most frequent where the tokenizer was trained.
    """

    ids: Mapping[str, int]
    parts: Mapping[int, tuple[int, ...]]
    required: frozenset[int]
    ranked: Sequence[int]

    def closed(self, ids: Iterable[int]) -> set[int]:
        """The ids with all that they need."""
        found: set[int] = set()
        waiting = list(ids)
        while waiting:
            index = waiting.pop()
            if index not in found:
                found.add(index)
                waiting += self.parts.get(index, ())
        return found

    def filled(self, kept: set[int], wanted: Sequence[int], size: int) -> set[int]:
        """`size` ids: those kept, which are closed, then those wanted as far as they fit, then by rank."""
        kept = set(kept)
        order = list(dict.fromkeys([*wanted, *self.ranked]))
        while len(kept) < size:  # a token whose parts did not fit may fit once others brought some
            before = len(kept)
            for index in order:
                more = set() if index in kept else self.closed([index]) - kept
                if len(kept) + len(more) <= size:
                    kept |= more
                if len(kept) == size:
                    break
            assert len(kept) > before
        return kept


def vocabulary(tokenizer_json: bytes) -> Vocabulary:
    """Of a BPE or Unigram tokenizer.json; Unsupported for other kinds and for affixes of words."""
    content = json.loads(tokenizer_json)
    ids = load_tokenizer(tokenizer_json).get_vocab(with_added_tokens=True)
    added = {token["id"] for token in content.get("added_tokens") or []}
    kind, model = _kind(content), content["model"]
    if kind == "BPE":
        _refuse_affixes(model)
        found = _Bpe(model, "ByteFallback" in json.dumps(content.get("decoder")))
        required = found.required()
        ranked, parts = found.ranked(), found.parts
    else:
        required, ranked, parts = _needed_pieces(model), _by_score(model), {}
    return Vocabulary(
        ids=ids,
        parts={ids[token]: tuple(ids[part] for part in pair) for token, pair in parts.items()},
        required=frozenset(ids[token] for token in required) | added,
        ranked=list(dict.fromkeys([*(ids[token] for token in ranked), *sorted(ids.values())])),
    )


def without_others(tokenizer_json: bytes, kept: Mapping[int, int]) -> bytes:
    """The tokenizer.json with the ids of `kept` alone, renumbered as it says.

    The new ids are in the order of the old ones. Unsupported where the `tokenizers` library would number the
    result otherwise, which it does where ids of added tokens have holes.
    """
    content = json.loads(tokenizer_json)
    ids = load_tokenizer(tokenizer_json).get_vocab(with_added_tokens=True)
    model = content["model"]
    if _kind(content) == "BPE":
        model |= _fewer_merges(model, kept)
    else:
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in kept]
        model["unk_id"] = kept.get(model.get("unk_id"))
    content |= {"truncation": None, "padding": None}
    for token in content.get("added_tokens") or []:
        token["id"] = kept[token["id"]]
    content["post_processor"] = _renumbered(content.get("post_processor"), kept)
    result = encoded(content)
    wanted = {token: kept[index] for token, index in ids.items() if index in kept}
    if load_tokenizer(result).get_vocab(with_added_tokens=True) != wanted:
        raise Unsupported("tokenizer.json: the ids of its added tokens have holes: it cannot be cut")
    return result


def _kind(content: Json) -> str:
    model = content["model"]
    kind = str(model.get("type") or ("BPE" if "merges" in model else "Unigram"))
    if kind not in ("BPE", "Unigram"):
        raise Unsupported(f"tokenizer.json: model {kind} cannot lose tokens: BPE and Unigram can")
    return kind


def _refuse_affixes(model: Json) -> None:
    for key in _AFFIXES:
        if model.get(key):
            raise Unsupported(f"tokenizer.json: {key} {model[key]!r}: such a vocabulary cannot lose tokens")


class _Bpe:
    """`spelled`: a character without a token is spelled as bytes, and the decoder joins these again."""

    def __init__(self, model: Json, decodes_bytes: bool) -> None:
        self._vocab: dict[str, int] = model["vocab"]
        self._unknown = {str(model["unk_token"])} if model.get("unk_token") in self._vocab else set[str]()
        self._ranks = {pair: rank for rank, pair in enumerate(_pairs(model))}
        self._bytes = {token for token in self._vocab if _BYTE.fullmatch(token)}
        self.spelled = bool(model.get("byte_fallback")) and decodes_bytes and len(self._bytes) == 256

    @cached_property
    def parts(self) -> dict[str, Pair]:
        """The parts that the last merge of each token joins, for tokens that merges make."""
        pairs = ((token, self._last_merge(token)) for token in self._vocab)
        return {token: pair for token, pair in pairs if pair}

    def required(self) -> set[str]:
        """A space must be a token, since decoders do not look for it among bytes."""
        single = {token for token in self._vocab if len(token) == 1}
        needed = self._bytes | (single & {SPACE}) if self.spelled else self._bytes | single
        return needed | self._unknown

    def ranked(self) -> list[str]:
        made = dict.fromkeys(left + right for left, right in self._ranks)
        return [token for token in made if token in self.parts]

    def _last_merge(self, token: str) -> Pair | None:
        """Merges the characters as the library does: the lowest rank first, and the leftmost of equals."""
        symbols = list(token)
        while len(symbols) > 1:
            pairs = list(pairwise(symbols))
            ranks = [self._ranks.get(pair, math.inf) for pair in pairs]
            lowest = min(ranks)
            if lowest == math.inf:
                return None
            at = ranks.index(lowest)
            if len(symbols) == 2:
                return pairs[0]
            symbols[at : at + 2] = ["".join(pairs[at])]
        return None


def _pairs(model: Json) -> list[Pair]:
    """Older files write a merge as one string."""
    return [_pair(merge) for merge in model["merges"]]


def _pair(merge: Any) -> Pair:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _fewer_merges(model: Json, kept: Mapping[int, int]) -> Json:
    vocab = {token: kept[index] for token, index in model["vocab"].items() if index in kept}
    merges = [
        merge
        for merge, (left, right) in zip(model["merges"], _pairs(model), strict=True)
        if left in vocab and right in vocab and left + right in vocab
    ]
    return {"vocab": vocab, "merges": merges}


def _needed_pieces(model: Json) -> set[str]:
    """Single characters, bytes, the unknown one, and pieces with a character that has no piece of its own.

    The unknown piece scores below the least likely piece, which therefore stays too.
    """
    pieces = [piece for piece, _ in model["vocab"]]
    single = {piece for piece in pieces if len(piece) == 1}
    needed = {piece for piece in pieces if _BYTE.fullmatch(piece) or not single.issuperset(piece)}
    scores = [score for _, score in model["vocab"]]
    unknown = [] if model.get("unk_id") is None else [pieces[model["unk_id"]]]
    return single | needed | {pieces[scores.index(min(scores))], *unknown}


def _by_score(model: Json) -> list[str]:
    return [piece for piece, _ in sorted(model["vocab"], key=lambda entry: -entry[1])]


def _renumbered(processor: Any, kept: Mapping[int, int]) -> Any:
    """A post-processor, which names ids as `ids` of a template, or as [token, id] of `sep` and `cls`."""
    if not processor:
        return processor
    changed = dict(processor)
    if "processors" in processor:
        changed["processors"] = [_renumbered(step, kept) for step in processor["processors"]]
    for key in ("sep", "cls"):
        if key in processor:
            token, index = processor[key]
            changed[key] = [token, kept[index]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: {**token, "ids": [kept[index] for index in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
    return changed


def processor_ids(tokenizer_json: bytes) -> set[int]:
    """The ids that the post-processor puts around texts."""
    return set(_named(json.loads(tokenizer_json).get("post_processor")))


def _named(processor: Any) -> Iterable[int]:
    if not processor:
        return
    for step in processor.get("processors", ()):
        yield from _named(step)
    for key in ("sep", "cls"):
        if key in processor:
            yield processor[key][1]
    for token in processor.get("special_tokens", {}).values():
        yield from token["ids"]
