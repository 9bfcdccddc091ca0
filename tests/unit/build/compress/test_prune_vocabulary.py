"""Tokens go; what is left writes every text, and the model says of kept tokens what it said before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from build.architecture import describe, describe_model
from build.checkpoint import Checkpoint, Origin, TokenizerFiles, Weight
from build.compress.passes import prune_vocabulary
from build.compress.passes.prune_vocabulary import Options
from build.compress.step import Pass, Tools
from build.compress.vocabulary import vocabulary, without_others
from build.dialects.onnxruntime.session import Session
from build.engine import build_engine
from build.errors import BadInput, Unsupported
from build.generation import generation
from build.quantise import Floats, Ids, Precision
from build.recipe import Limits, Recipe
from build.reference import decoder as reference
from build.token_table import token_bytes
from tests.models import tiny, tokenizers_of_kinds

THE_PASS: Pass = prune_vocabulary
TEXTS = ("the brown dog in the house", "the user")


def no_stage(_name: str, _steps: int) -> Callable[[], None]:
    return lambda: None


TOOLS = Tools(TEXTS, 0, no_stage)


@dataclass(frozen=True)
class Pair:
    """A tokenizer, the one with some of its tokens, the bytes of their ids as they are served, and
    the new id of each old one.
    """

    parent: Tokenizer
    child: Tokenizer
    tables: tuple[list[bytes], list[bytes]]
    new: dict[int, int]

    def renumbered(self, ids: list[int]) -> list[int] | None:
        return [self.new[index] for index in ids] if self.new.keys() >= set(ids) else None


@cache
def pair(kind: str, share: float = 0.5) -> Pair:
    """With that share of the tokens that need not stay."""
    parent = tokenizers_of_kinds.tokenizer_of(kind)
    whole = parent.to_str().encode()
    found = vocabulary(whole)
    least = found.closed(found.required)
    size = round(len(least) + share * (parent.get_vocab_size() - len(least)))
    wanted = [index for text in TEXTS for index in parent.encode(text).ids]
    kept = sorted(found.filled(least, wanted, size))
    assert len(least) <= len(kept) == size < parent.get_vocab_size()
    new = {old: index for index, old in enumerate(kept)}
    less = without_others(whole, new)
    tables = (token_bytes(whole, parent.get_vocab_size()), token_bytes(less, size))
    return Pair(parent, Tokenizer.from_str(less.decode()), tables, new)


WORDS = [
    *" ".join(tokenizers_of_kinds.CORPUS).split(),
    *tokenizers_of_kinds.SPECIAL,
    "<0x41>",
    "▁",
    "▁▁",
    "\n\n",
]
TEXT = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6), st.just(" ")), max_size=8).map("".join)


@pytest.mark.parametrize("kind", tokenizers_of_kinds.EVERY)
@pytest.mark.parametrize("share", [0.0, 0.5])
@given(text=TEXT)
@settings(max_examples=40, deadline=None)
def test_every_text_is_served_as_before(kind: str, share: float, text: str) -> None:
    both = pair(kind, share)
    old, new = both.parent.encode(text).ids, both.child.encode(text).ids
    assert max(new, default=0) < len(both.new)
    before, now = both.tables
    assert b"".join(now[index] for index in new) == b"".join(before[index] for index in old)


@pytest.mark.parametrize("kind", tokenizers_of_kinds.EVERY)
@given(text=TEXT)
@settings(max_examples=60, deadline=None)
def test_a_text_of_kept_tokens_has_the_same_tokens(kind: str, text: str) -> None:
    both = pair(kind)
    expected = both.renumbered(both.parent.encode(text).ids)
    assert expected is None or both.child.encode(text).ids == expected


@pytest.mark.parametrize("kind", tokenizers_of_kinds.EVERY)
def test_every_kept_token_can_still_come_up(kind: str) -> None:
    """Without the parts that its merges join it never would."""
    both = pair(kind)
    reachable = 0
    for token in both.parent.get_vocab():
        alone = both.parent.model.tokenize(token)
        if len(alone) == 1 and alone[0].value == token and alone[0].id in both.new:
            reachable += 1
            assert [part.id for part in both.child.model.tokenize(token)] == [both.new[alone[0].id]]
    assert reachable > 30


def bare(model: dict[str, Any]) -> bytes:
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model}).encode()


@st.composite
def chains(draw: st.DrawFn) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of two letters, and merges of tokens that are there before, some the same token's."""
    tokens, merges = list("ab"), list[tuple[str, str]]()
    for _ in range(draw(st.integers(1, 12))):
        left, right = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if (left, right) not in merges and len(left + right) < 10:
            merges.append((left, right))
            tokens = list(dict.fromkeys([*tokens, left + right]))
    return {token: index for index, token in enumerate(tokens)}, merges


@given(
    made=chains(),
    share=st.floats(0, 1),
    ignoring=st.booleans(),
    texts=st.lists(st.text("ab", max_size=12), min_size=8, max_size=8),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_any_merges_can_be_thinned_out(
    made: tuple[dict[str, int], list[tuple[str, str]]],
    share: float,
    ignoring: bool,
    texts: list[str],
    data: st.DataObject,
) -> None:
    """With several merges for a token, and with words that are looked up whole, as in Llama 3."""
    vocab, merges = made
    model: dict[str, Any] = {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": ignoring}
    whole = json.dumps({"version": "1.0", "added_tokens": [], "model": model}).encode()
    found = vocabulary(whole)
    least = found.closed(found.required)
    size = round(len(least) + share * (len(vocab) - len(least)))
    wanted = data.draw(st.permutations(sorted(vocab.values())))
    kept = sorted(found.filled(least, wanted, size))
    assert len(kept) == size
    new = {old: index for index, old in enumerate(kept)}
    parent, child = (Tokenizer.from_str(one.decode()) for one in (whole, without_others(whole, new)))
    for text in texts:
        old, now = parent.encode(text), child.encode(text)
        assert "".join(now.tokens) == text
        if new.keys() >= set(old.ids):
            assert now.ids == [new[index] for index in old.ids]


def test_the_leftmost_of_equal_merges_comes_first() -> None:
    """The token aaa is made of aa and a: the other merge for it is never reached."""
    vocab = {"a": 0, "aa": 1, "aaa": 2}
    for merges, parts in (
        ([["a", "a"], ["aa", "a"]], {1: (0, 0), 2: (1, 0)}),
        ([["a", "a"], ["a", "aa"]], {1: (0, 0)}),
    ):
        assert vocabulary(bare({"type": "BPE", "vocab": vocab, "merges": merges})).parts == parts


PIECES = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.floats(-20, -1), min_size=3, max_size=12)


@given(pieces=PIECES, texts=st.lists(st.text("abc", max_size=8), min_size=8, max_size=8), data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_pieces_can_be_thinned_out(
    pieces: dict[str, float], texts: list[str], data: st.DataObject
) -> None:
    """Also where some letter has no piece of its own, and is unknown but within others."""
    entries = [["<unk>", 0.0], *map(list, pieces.items())]
    whole = bare({"type": "Unigram", "unk_id": 0, "vocab": entries, "byte_fallback": False})
    found = vocabulary(whole)
    least = found.closed(found.required)
    size = data.draw(st.integers(len(least), len(entries)))
    wanted = data.draw(st.permutations(range(len(entries))))
    kept = sorted(found.filled(least, wanted, size))
    new = {old: index for index, old in enumerate(kept)}
    parent, child = (Tokenizer.from_str(one.decode()) for one in (whole, without_others(whole, new)))
    for text in texts:
        old, now = parent.encode(text).ids, child.encode(text).ids
        assert 0 in old or 0 not in now
        if new.keys() >= set(old) and 0 not in old:
            assert now == [new[index] for index in old]


def test_tokens_of_the_texts_come_first() -> None:
    whole = tokenizers_of_kinds.tokenizer_of("byte level").to_str().encode()
    found = vocabulary(whole)
    least = found.closed(found.required)
    rare = found.ids["".join(json.loads(whole)["model"]["merges"][-1])]
    assert rare not in found.filled(least, [], len(least) + 20)
    assert rare in found.filled(least, [rare], len(least) + 20)


def test_the_rest_is_filled_in_the_order_of_the_merges() -> None:
    whole = tokenizers_of_kinds.tokenizer_of("byte level").to_str().encode()
    found = vocabulary(whole)
    least = found.closed(found.required)
    merges = json.loads(whole)["model"]["merges"]
    first = {found.ids["".join(merge)] for merge in merges[:25]}
    assert found.filled(least, [], len(least) + 25) == least | first


def test_other_kinds_of_vocabularies_are_refused_by_name() -> None:
    piece = {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "continuing_subword_prefix": "##"}
    with pytest.raises(Unsupported, match="WordPiece cannot lose tokens"):
        vocabulary(bare({**piece, "max_input_chars_per_word": 100}))
    with pytest.raises(Unsupported, match="end_of_word_suffix '</w>'"):
        vocabulary(bare({"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"}))


def opened(folder: Path, family: str = "llama", **changes: Any) -> Checkpoint:
    return tiny.opened(tiny.write_folder(folder, family, **changes))


def old_ids(parent: Checkpoint, child: Checkpoint) -> Ids:
    """The old id of each new one."""
    before, after = (Tokenizer.from_str(c.tokenizer.json.decode()).get_vocab() for c in (parent, child))
    return np.array([before[token] for token in sorted(after, key=lambda token: after[token])])


def logits(checkpoint: Checkpoint, ids: Ids) -> Floats:
    architecture = describe(checkpoint.config)
    checkpoint.require_exactly(architecture.tensors())
    hidden = reference.final_hidden(checkpoint, architecture, ids, lambda: None)
    result: Floats = hidden @ reference.head_weight(checkpoint, architecture).T
    return result


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_kept_tokens_stay(family: str, tied: bool, tmp_path: Path) -> None:
    parent = opened(tmp_path, family, tie_word_embeddings=tied)
    options = Options(len(tiny.VOCAB) - 2)
    THE_PASS.require(parent, options)
    child = THE_PASS.run(parent, options, TOOLS)
    old = old_ids(parent, child)
    assert child.config["vocab_size"] == len(old) == options.keep
    ids = np.random.default_rng(0).integers(0, len(old), (2, 20))
    np.testing.assert_allclose(logits(child, ids), logits(parent, old[ids])[..., old], atol=1e-5)
    assert ("lm_head.weight" in child.weights) is ("lm_head.weight" in parent.weights)


def test_seen_tokens_are_kept_and_the_parent_stays(tmp_path: Path) -> None:
    parent = opened(tmp_path)
    before = json.loads(parent.tokenizer.json)
    child = THE_PASS.run(parent, Options(len(tiny.VOCAB) - 1), TOOLS)
    gone = set(before["model"]["vocab"]) - set(json.loads(child.tokenizer.json)["model"]["vocab"])
    assert len(gone) == 1
    assert gone <= set(tiny.VOCAB[-4:])
    assert json.loads(parent.tokenizer.json) == before
    assert parent.config["vocab_size"] == len(tiny.VOCAB)
    narrow = replace(TOOLS, texts=("in in in",))
    for domain, kept in ((1.0, "in"), (0.0, "Ġt")):
        child = THE_PASS.run(parent, Options(len(tiny.VOCAB) - 3, domain), narrow)
        assert {kept} == set(json.loads(child.tokenizer.json)["model"]["vocab"]) & set(tiny.VOCAB[-4:])
    with pytest.raises(BadInput, match=r"prune-vocabulary: domain: 1.5, must be a number in \[0, 1\]"):
        Options(300, 1.5)


def test_settings_name_the_new_ids(tmp_path: Path) -> None:
    """One that the model never had would else become another token."""
    last = len(tiny.VOCAB) - 1
    parent = opened(tmp_path, eos_token_id=[last, 5000], pad_token_id=5000)
    parent = replace(
        parent,
        generation={
            "eos_token_id": [last],
            "bos_token_id": 1,
            "suppress_tokens": [last - 1, last],
            "bad_words_ids": [[last - 1], [last], [1, last]],
        },
    )
    child = THE_PASS.run(parent, Options(last), replace(TOOLS, texts=()))
    new = {int(old): index for index, old in enumerate(old_ids(parent, child))}
    assert last in new
    assert last - 1 not in new
    assert child.config["eos_token_id"] == [new[last]]
    assert child.config["pad_token_id"] is None
    assert child.generation == {
        "eos_token_id": [new[last]],
        "bos_token_id": 1,
        "suppress_tokens": [new[last]],
        "bad_words_ids": [[new[last]], [1, new[last]]],
    }
    assert generation(child)["eos_token_ids"] == [new[last]]


def test_the_words_of_the_chat_template_stay(tmp_path: Path) -> None:
    parent = opened(tmp_path)
    template = "{{ ' the in' }}"
    parent = replace(parent, tokenizer=replace(parent.tokenizer, chat_template=template))
    with pytest.raises(BadInput, match=f"keep: {len(tiny.VOCAB) - 1}, must be .* {len(tiny.VOCAB)}: bytes"):
        THE_PASS.require(parent, Options(len(tiny.VOCAB) - 1))


def test_post_processors_name_the_new_ids() -> None:
    both = pair("gemma")
    begin = both.parent.encode("the").ids[0]
    assert both.parent.id_to_token(begin) == "<s>"
    assert both.new[begin] != begin
    assert both.child.encode("the").ids[0] == both.child.token_to_id("<s>") == both.new[begin]


def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    parent = opened(tmp_path)
    for keep, problem in (
        (0, "at least 1"),
        (10, "at least 2[56][0-9]: bytes"),
        (10_000, "at most 263: there"),
    ):
        with pytest.raises(BadInput, match=f"prune-vocabulary: keep: {keep}, must be .*{problem}"):
            THE_PASS.require(parent, Options(keep))


def test_rows_without_a_token_go(tmp_path: Path) -> None:
    """Vocabularies are padded to a round number of rows."""
    parent = opened(tmp_path, vocab_size=320)
    child = THE_PASS.run(parent, Options(len(tiny.VOCAB)), TOOLS)
    assert child.weights["lm_head.weight"].shape[0] == len(tiny.VOCAB)
    assert json.loads(child.tokenizer.json)["model"] == json.loads(parent.tokenizer.json)["model"]


def test_blocks_of_the_source_keep_their_rows(tmp_path: Path) -> None:
    parent = tiny.opened_gguf(tiny.write_gguf(tmp_path / "m.gguf", "qwen2", Kind.Q8_0))
    child = THE_PASS.run(parent, Options(len(tiny.VOCAB) - 2), TOOLS)
    old = old_ids(parent, child)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        read_blocks = child.weights[name].read_blocks
        assert read_blocks is not None
        np.testing.assert_array_equal(read_blocks().dequantise(), parent.weights[name].read()[old])
        np.testing.assert_array_equal(child.weights[name].read(), parent.weights[name].read()[old])


@dataclass(frozen=True)
class NoProgress:
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        return lambda: None


def test_the_result_builds_and_runs(tmp_path: Path) -> None:
    child = THE_PASS.run(opened(tmp_path / "source", "qwen2"), Options(len(tiny.VOCAB) - 2), TOOLS)
    recipe = Recipe(name="mini", source="-", precision=Precision.INT8, limits={"int8": Limits()})
    result = build_engine(recipe, lambda _: child, tmp_path / "models", NoProgress(), verify_tokens=96)
    assert result.manifest["model"]["vocab_size"] == len(tiny.VOCAB) - 2
    session = Session(result.target / "model.onnx", 32)
    assert session.prefill(0, np.arange(3, 20)).shape == (1, len(tiny.VOCAB) - 2)


def bart(tokenizer: Tokenizer, target: bytes | None = None) -> Checkpoint:
    size = tokenizer.get_vocab_size()
    config = {
        "model_type": "bart",
        "vocab_size": size,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 32,
        "forced_eos_token_id": tokenizer.token_to_id("</s>"),
    }
    random = np.random.default_rng(0)
    made = {
        n: random.standard_normal(s).astype(np.float32) for n, s in describe_model(config).tensors().items()
    }
    return Checkpoint(
        config=config,
        weights={name: Weight(values.shape, lambda v=values: v) for name, values in made.items()},  # type: ignore[misc]
        tokenizer=TokenizerFiles(tokenizer.to_str().encode(), None, {}, target),
        generation={"decoder_start_token_id": tokenizer.token_to_id("</s>")},
        origin=Origin("folder", "bart", None, None, {}),
    )


def test_an_encoder_decoder_shares_one_vocabulary() -> None:
    tokenizer = tokenizers_of_kinds.tokenizer_of("byte level")
    parent = bart(tokenizer)
    size = tokenizer.get_vocab_size() - 20
    child = THE_PASS.run(parent, Options(size), TOOLS)
    child.require_exactly(describe_model(child.config).tensors())
    old = old_ids(parent, child)
    tables = {
        name for name, weight in parent.weights.items() if weight.shape[0] == len(tokenizer.get_vocab())
    }
    assert len(tables) >= 2
    for name in tables:
        np.testing.assert_array_equal(child.weights[name].read(), parent.weights[name].read()[old])
    assert old[child.generation["decoder_start_token_id"]] == tokenizer.token_to_id("</s>")
    assert old[child.config["forced_eos_token_id"]] == tokenizer.token_to_id("</s>")


def test_two_tokenizers_are_refused() -> None:
    tokenizer = tokenizers_of_kinds.tokenizer_of("byte level")
    with pytest.raises(Unsupported, match="bart has a tokenizer for sources and one for answers"):
        THE_PASS.require(bart(tokenizer, tokenizer.to_str().encode()), Options(300))
