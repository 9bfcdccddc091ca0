"""Gemma 3 from its own layout, as google/gemma-3-270m-it and the text-only gemma-3-1b-it have it: a tiny one
is built, and encodes, decodes and answers as transformers does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from build.architecture import describe, view
from build.engine import build_engine
from build.errors import Unsupported
from build.quantise import Precision
from build.recipe import Limits, Recipe
from build.sources.resolve import open_source
from engine.core.tokens import load_table
from engine.edge.artifact import read_manifest
from engine.prompts.chat import ChatTemplate, Message, PromptEncoder, load_tokenizer
from tests.models.engines import write_engine
from tests.models.tokenizers_of_kinds import gemma

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

NAMED = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
TURNS = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")
IMAGE = "<image_soft_token>"  # the one token without a row
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SHARED = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "final_logit_softcapping": None,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 9,
    "torch_dtype": "float32",
    "use_cache": True,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "270m": {
        "_sliding_window_pattern": 6,
        "eos_token_id": 1,
        "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
        "use_bidirectional_attention": False,
        "transformers_version": "4.55.0.dev0",
    },
    "1b": {
        "cache_implementation": "hybrid",
        "eos_token_id": [1, 6],
        "sliding_window_pattern": 6,
        "transformers_version": "4.50.0.dev0",
    },
}


def tokenizer_json() -> dict[str, Any]:
    """Gemma's order: what has a name, the turns, what is added and not special, pieces."""
    content: dict[str, Any] = json.loads(gemma().to_str())
    added = [token["content"] for token in content["added_tokens"]]
    texts = dict.fromkeys([*NAMED, *TURNS, *added, *content["model"]["vocab"]])
    vocab = {text: index for index, text in enumerate(texts)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [
        {"id": vocab.get(text, len(vocab)), "content": text, **flags, "special": text not in added}
        for text in (*NAMED, *TURNS, *added, IMAGE)
    ]
    content["model"] |= {"vocab": vocab, "unk_token": "<unk>"}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    }
    return content


def write(folder: Path, layout: str) -> Path:
    content = tokenizer_json()
    vocabulary = len(content["model"]["vocab"])
    config = {**SHARED, **LAYOUTS[layout], "vocab_size": vocabulary}
    torch.manual_seed(0)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    model = transformers.Gemma3ForCausalLM(transformers.AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for values in model.parameters():
            values.copy_(torch.randn_like(values) * (0.1 if values.ndim == 1 else 0.15))
    model.save_pretrained(folder)
    special = {name: f"<{name.removesuffix('_token')}>" for name in ("bos_token", "eos_token", "pad_token")}
    images = {"boi_token": TURNS[2], "eoi_token": TURNS[3], "image_token": IMAGE}
    settings = {
        **special,
        **images,
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in content["added_tokens"]
        },
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": images,
        "model_max_length": 10**30,
        "processor_class": "Gemma3Processor",
        "sp_model_kwargs": None,
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "use_default_system_prompt": False,
    }
    files = {"config.json": config, "tokenizer.json": content, "tokenizer_config.json": settings}
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder


class Quiet:
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        return lambda: None


@pytest.fixture(scope="module", params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gemma3") / "checkpoint", request.param)


@pytest.fixture(scope="module")
def engine(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build publishes."""
    limits = {precision.value: Limits() for precision in Precision}
    recipe = Recipe(name="gemma", source=str(folder), precision=Precision.FP32, limits=limits)
    return build_engine(
        recipe, open_source, tmp_path_factory.mktemp("models"), Quiet(), verify_tokens=32
    ).target


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_texts_have_the_ids_of_transformers(engine: Path, theirs: Any) -> None:
    ours = load_tokenizer(engine / "tokenizer.json")
    assert json.loads((engine / "manifest.json").read_text())["model"]["vocab_size"] == len(theirs) - 1
    words = st.sampled_from(
        ["the fox", "  ", "   ", "\n", "\n\n\n", "<table>", "<h1>", "<bos>", "▁▁", "é😀", " x", "1 2"]
    )

    @given(st.lists(words, max_size=8).map("".join))
    def check(text: str) -> None:
        assert ours.encode(text).ids == theirs.encode(text)

    check()
    assert IMAGE not in ours.get_vocab()


def test_answers_have_the_text_of_transformers(engine: Path, theirs: Any) -> None:
    table = load_table(engine / "tokens.bin")
    vocab = theirs.get_vocab()
    of_bytes = {index for text, index in vocab.items() if text.startswith("<0x")}
    whole = st.sampled_from(sorted(set(range(len(table))) - of_bytes)).map(lambda index: [index])
    spelled = st.sampled_from("\tñ€😀").map(lambda text: [vocab[f"<0x{byte:02X}>"] for byte in text.encode()])

    @given(st.lists(whole | spelled, max_size=12))
    def check(found: list[list[int]]) -> None:
        ids = [index for piece in found for index in piece]
        assert table.join(ids).decode() == theirs.decode(ids, skip_special_tokens=True)

    check()
    assert table[vocab["▁▁"]] == b"  "


def test_a_chat_is_written_as_transformers_writes_it(engine: Path, theirs: Any) -> None:
    manifest = read_manifest(engine)
    assert manifest.special == theirs.special_tokens_map
    assert manifest.special["boi_token"] == "<start_of_image>"
    template = ChatTemplate((engine / "chat_template.jinja").read_text(), manifest.special)
    turns = [
        {"role": "user", "content": "two  lines\n\nand <h1>"},
        {"role": "assistant", "content": "\n the fox"},
    ]
    messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
    wanted = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    encoder = PromptEncoder(load_tokenizer(engine / "tokenizer.json"), template)
    assert encoder.encode_chat(messages) == wanted


def test_it_answers_as_transformers_does(folder: Path, theirs: Any, tmp_path: Path) -> None:
    checkpoint = open_source(str(folder))
    ids = np.array(theirs.encode("the quick brown fox  jumps\n\n"), np.int64)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        wanted = model.generate(torch.tensor(ids[None]), **options)[0, len(ids) :].tolist()
    viewed = view(checkpoint)
    ours = write_engine(tmp_path / "engine", viewed, describe(checkpoint.config), Precision.FP32)
    assert ours.greedy(ids, 6) == wanted


def test_a_checkpoint_that_sees_images_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    """google/gemma-3-4b-it: `language_model.` before every name, the text's settings in `text_config`."""
    config = json.loads((folder / "config.json").read_text())
    outer = {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": config,
    }
    seeing = tmp_path / "seeing"
    seeing.mkdir()
    weights = load_file(folder / "model.safetensors")
    save_file(
        {f"language_model.{name}": value for name, value in weights.items()}, seeing / "model.safetensors"
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (seeing / name).write_bytes((folder / name).read_bytes())
    (seeing / "config.json").write_text(json.dumps(outer))
    with pytest.raises(
        Unsupported, match="it sees images; a checkpoint of its language model alone is a gemma3_text"
    ):
        view(open_source(str(seeing)))
