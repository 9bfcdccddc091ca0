"""Keys that a config.json lacks: the defaults of transformers' own configuration classes, key by key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")

import transformers

from build.architecture import FAMILIES, completed, describe_model, llama
from build.architecture.config_reader import ConfigReader
from build.errors import BadInput
from tests.models import tiny
from tests.paths import ROOT

pytestmark = pytest.mark.parity
PAGE = ROOT / "docs" / "build.md"
# No fields of the classes: read from what the keywords are called in older files.
OLDER = {
    "rope_theta",
    "rope_scaling",
    "rope_local_base_freq",
    "sliding_window_pattern",
    "scale_decoder_outputs",
}
DEFAULTS = {name: family.defaults for name, family in FAMILIES.items()}
KEYS = [(family, key) for family, keys in DEFAULTS.items() for key in keys]


def theirs(family: str, **given: Any) -> Any:
    return transformers.CONFIG_MAPPING[family].from_dict(given)


@pytest.mark.parametrize(("family", "key"), KEYS)
def test_an_absent_key_has_the_default_of_the_class(family: str, key: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(transformers.CONFIG_MAPPING[family])}
    if key in fields and key != "rope_parameters":
        assert DEFAULTS[family][key] == fields[key].default
        assert type(DEFAULTS[family][key]) is type(fields[key].default)
    elif (family, key) in (("qwen2", "head_dim"), ("t5", "tie_word_embeddings")):
        pass  # below
    else:
        assert key in OLDER | {"rope_parameters"}


def test_what_is_no_field_has_the_default_that_the_class_computes() -> None:
    for family in ("llama", "mistral", "qwen2", "qwen3"):
        assert theirs(family).rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
        assert DEFAULTS[family]["rope_theta"] == 10000.0
    kinds = theirs("gemma3_text").rope_parameters
    assert kinds["full_attention"]["rope_theta"] == DEFAULTS["gemma3_text"]["rope_theta"]
    assert kinds["sliding_attention"]["rope_theta"] == DEFAULTS["gemma3_text"]["rope_local_base_freq"]
    full = [kind == "full_attention" for kind in theirs("gemma3_text").layer_types]
    assert full.index(True) + 1 == DEFAULTS["gemma3_text"]["sliding_window_pattern"]
    for tied, scales in ((None, True), (True, True), (False, False)):
        given = {} if tied is None else {"tie_word_embeddings": tied}
        assert theirs("t5", **given).scale_decoder_outputs is scales


@pytest.mark.parametrize("family", FAMILIES)
def test_other_names_of_keys_are_those_of_the_class(family: str) -> None:
    known = {name: key for name, key in theirs(family).attribute_map.items() if key in DEFAULTS[family]}
    assert FAMILIES[family].names == known


def test_no_adapter_reads_a_key_that_is_not_compared() -> None:
    with pytest.raises(KeyError):
        ConfigReader({"model_type": "llama", "rotary_dim": 3}, llama.FAMILIES).count("rotary_dims")


def _decoders() -> Iterator[Any]:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    yield tiny.config("llama", rope_scaling=rope, rope_theta=5000.0)
    yield tiny.config("llama", rope_scaling={"type": "linear", "factor": 2.0}, rope_parameters=rope)
    yield tiny.config("llama", rope_parameters=rope | {"original_max_position_embeddings": 64})
    yield tiny.config("mistral", sliding_window=7)
    yield tiny.config("qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=1)
    yield tiny.config("qwen3", use_sliding_window=True, sliding_window=7, attention_bias=True)
    yield tiny.config("gpt2", n_inner=80, scale_attn_by_inverse_layer_idx=True)
    yield tiny.config("gemma3_text", layer_types=None, sliding_window_pattern=2)
    kinds = {"full_attention": {"rope_type": "linear", "factor": 2.0}, "sliding_attention": None}
    yield tiny.config(
        "gemma3_text", rope_parameters=kinds, rope_scaling={"rope_type": "linear", "factor": 4.0}
    )


@given(st.sampled_from(list(_decoders())), st.data())
def test_a_config_without_some_of_its_keys_is_the_model_that_transformers_makes_of_it(
    whole: dict[str, Any], data: st.DataObject
) -> None:
    """Their class completes the rest, writes all of it down, and we read that too."""
    dropped = data.draw(st.sets(st.sampled_from(sorted(set(whole) - {"model_type"}))))
    part = {key: json.loads(json.dumps(value)) for key, value in whole.items() if key not in dropped}
    if "num_hidden_layers" in dropped and part.get("layer_types"):
        part["num_hidden_layers"] = whole["num_hidden_layers"]
    try:
        written = json.loads(theirs(part["model_type"], **json.loads(json.dumps(part))).to_json_string(False))
    except Exception:  # noqa: BLE001  what they refuse, as heads that do not divide the size
        return
    try:
        ours = describe_model(part)
    except BadInput:
        with pytest.raises(BadInput):
            describe_model(written)
        return
    assert ours == describe_model(written)


@pytest.mark.parametrize(
    ("family", "key"),
    [("llama", "hidden_size"), ("mistral", "num_hidden_layers"), ("qwen3", "head_dim"), ("t5", "d_ff")],
)
def test_a_null_is_no_absent_key(family: str, key: str) -> None:
    with pytest.raises(Exception, match=key):
        theirs(family, **{key: None})
    with pytest.raises(BadInput, match=f"{key}: None, must be a positive whole number"):
        describe_model({"model_type": family, key: None})


def test_a_name_of_another_family_wins_as_in_transformers() -> None:
    given = {"n_embd": 64, "hidden_size": 32, "n_head": 4}
    assert theirs("gpt2", **given).n_embd == completed({"model_type": "gpt2", **given})["n_embd"] == 32


def table() -> str:
    """Markdown: a row for each key, a column for each family; a dash where the family does not know it."""
    keys = sorted({key for family in DEFAULTS.values() for key in family})
    rows = [["key", *DEFAULTS], ["---"] * (len(DEFAULTS) + 1)]
    rows += [[f"`{key}`", *(_cell(family, key) for family in DEFAULTS.values())] for key in keys]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(family: Mapping[str, Any], key: str) -> str:
    if key not in family:
        return "–"
    value = family[key]
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text("utf-8"), f"{PAGE} must have:\n\n{table()}"
