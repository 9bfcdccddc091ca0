"""Tokenizers of folders against transformers' AutoTokenizer of the same folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from build.checkpoint import TokenizerFiles
from build.errors import BadInput
from build.sources.folder_tokenizer import tokenizer_files
from build.sources.tokenizer_classes import CLASSES, FOREIGN, MARIAN
from engine.prompts.chat import ChatTemplate, Message
from tests.models.tiny_seq2seq import KINDS as KINDS_OF_SEQ2SEQ
from tests.models.tiny_seq2seq import PIECES
from tests.models.tokenizers_of_kinds import KINDS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

Json = dict[str, Any]
NAMED = ("<pad>", "</s>", "<mask_2>", "<unk>", "<s>", "<mask>")


def unigram() -> Tokenizer:
    """As T5, mBART and Pegasus have it, with the unknown piece where each of the three looks for it."""
    scores = [(text, 0.0) for text in NAMED] + [(text, -1.0 - i / 10) for i, text in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram([*scores, ("en_XX", 0.0)], NAMED.index("<unk>"), False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@cache
def content_of(kind: str) -> Json:
    tokenizer = unigram() if kind == "unigram" else KINDS[kind]()
    content: Json = json.loads(tokenizer.to_str())
    return content


BPE_CLASSES = (
    "PreTrainedTokenizerFast",
    "LlamaTokenizerFast",
    "LlamaTokenizer",
    "CodeLlamaTokenizer",
    "GPT2TokenizerFast",
    "GPTNeoXTokenizerFast",
    "Qwen2Tokenizer",
    "GemmaTokenizer",
    "BartTokenizer",
    "YiTokenizer",
    None,
)
UNIGRAM_CLASSES = (
    "PreTrainedTokenizerFast",
    "T5Tokenizer",
    "MBartTokenizer",
    "MBart50Tokenizer",
    "PegasusTokenizerFast",
    "MT5Tokenizer",
    None,
)
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma3_text", "bart")
UNIGRAM_FAMILIES = ("mbart", "pegasus", "t5", "mt5")
TEXTS = ("<a>", "<b>", "<s>", "</s>", "<mask>", "<|im|>", "▁▁", "é", "the", "<new one>", "<|endoftext|>")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
flags = st.fixed_dictionaries(dict.fromkeys(FLAGS, st.booleans()))
tokens = st.builds(lambda text, flag: {"content": text, **flag}, st.sampled_from(TEXTS), flags)
named_tokens = st.sampled_from(TEXTS) | tokens.map(lambda token: {"__type": "AddedToken", **token})
names = st.sampled_from(["bos_token", "eos_token", "pad_token", "mask_token", "unk_token", "image_token"])
lists = st.lists(st.sampled_from(TEXTS), max_size=2)
declared = st.lists(tokens, max_size=4, unique_by=lambda token: token["content"])
ids = st.integers(0, 500)
tokenizer_settings = st.fixed_dictionaries(
    {},
    optional={
        "added_tokens_decoder": st.dictionaries(ids.map(str), tokens, max_size=4),
        "additional_special_tokens": lists,
        "extra_special_tokens": lists
        | st.dictionaries(st.sampled_from(["image_token", "boi"]), named_tokens),
        "add_prefix_space": st.sampled_from([None, True, False]),
        "legacy": st.sampled_from([None, True, False]),
        "add_bos_token": st.booleans(),
        "add_eos_token": st.booleans(),
        "model_max_length": st.sampled_from([4000, 10**30]),
        "src_lang": st.sampled_from([None, "en_XX", "de_DE"]),
        "extra_ids": st.integers(0, 3),
    },
)
maps = st.dictionaries(names, st.sampled_from(TEXTS) | tokens, max_size=3) | st.fixed_dictionaries(
    {}, optional={"additional_special_tokens": lists, "extra_special_tokens": lists, "eos_token": tokens}
)
words = st.sampled_from([*TEXTS, " ", "  ", "the fox", " lead", "12 34", "\n", "x", "été 😀", "en_XX"])
texts = st.lists(words, max_size=8).map("".join)


def write(folder: Path, family: str, content: Json, given: Json, files: Mapping[str, Any]) -> Json:
    """The folder's config.json."""
    config = {"model_type": family}
    whole = {"tokenizer.json": content, "tokenizer_config.json": given, "config.json": config, **files}
    for name, value in whole.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return config


def flagged(*files: Any) -> Iterator[Json]:
    """Every token with flags in the files."""
    for value in files:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, dict) and "normalized" in value:
            yield value
        yield from flagged(*inner)


def assert_equal(ours: TokenizerFiles, theirs: Any, text: str, decodes: bool) -> None:
    tokenizer = Tokenizer.from_str(ours.json.decode())
    assert dict(ours.special) == theirs.special_tokens_map
    added = {str(token): index for index, token in tokenizer.get_added_tokens_decoder().items()}
    assert added == theirs.get_added_vocab()
    for whole in (True, False):
        found = tokenizer.encode(text, add_special_tokens=whole).ids
        assert found == theirs.encode(text, add_special_tokens=whole)
    for skip in (True, False) if decodes else ():
        assert tokenizer.decode(found, skip_special_tokens=skip) == theirs.decode(
            found, skip_special_tokens=skip
        )


@pytest.mark.parametrize("kind", ["unigram", *KINDS])
def test_every_file_counts_as_in_transformers(kind: str) -> None:
    of_unigram = kind == "unigram"

    @settings(max_examples=40)
    @given(
        st.sampled_from(UNIGRAM_FAMILIES if of_unigram else FAMILIES),
        st.sampled_from(UNIGRAM_CLASSES if of_unigram else BPE_CLASSES),
        declared,
        st.dictionaries(names, named_tokens, max_size=3),
        tokenizer_settings,
        st.none() | maps,
        st.none() | st.dictionaries(st.sampled_from(TEXTS), ids, max_size=2),
        texts,
    )
    def check(
        family: str,
        named_class: str | None,
        in_json: list[Json],
        named: Json,
        given_settings: Json,
        special_map: Json | None,
        added: dict[str, int] | None,
        text: str,
    ) -> None:
        listed = [{"id": 1000 + index, **token} for index, token in enumerate(in_json)]
        content = {**content_of(kind), "added_tokens": listed}
        whole = {**given_settings, **named, **({"tokenizer_class": named_class} if named_class else {})}
        beside = {"special_tokens_map.json": special_map, "added_tokens.json": added}
        files = {name: value for name, value in beside.items() if value is not None}
        with TemporaryDirectory() as name:
            config = write(Path(name), family, content, whole, files)
            try:
                theirs = transformers.AutoTokenizer.from_pretrained(name)
                theirs.encode(text)
            except Exception:  # noqa: BLE001 (it raises whatever comes, and nothing is to be compared with)
                return
            entries = [
                (entry["content"], entry["normalized"]) for entry in flagged(content, whole, special_map)
            ]
            said = Counter(text for text, _ in set(entries)) + Counter((added or {}).keys())
            # In memory the library goes on spelling a token as its first version says, once it is normalised.
            spelled_alike = max(said.values(), default=0) < 2
            assert_equal(tokenizer_files(Path(name), config), theirs, text, spelled_alike)

    check()


def test_every_class_of_transformers_is_known() -> None:
    """One that is not would be taken for TokenizersBackend."""
    auto = transformers.models.auto.tokenization_auto
    names = {name for name in dir(transformers) if name.endswith(("Tokenizer", "TokenizerFast"))}
    names |= {name for name in auto.TOKENIZER_MAPPING_NAMES.values() if name}
    classes = {name: auto.tokenizer_class_from_name(name) for name in names}
    base = transformers.PreTrainedTokenizerBase
    of_their_own = {
        name.removesuffix("Fast")
        for name, found in classes.items()
        if isinstance(found, type) and issubclass(found, base) and found.__name__ not in BACKENDS
    }
    assert of_their_own == {*CLASSES, *FOREIGN, MARIAN}


BACKENDS = ("TokenizersBackend", "PythonBackend", "PreTrainedTokenizerBase")
TEMPLATE = (
    "{{ bos_token }}|{{ pad_token }}|{{ image_token }}|{{ messages[0].content }}|{{ unk_token is defined }}"
)
TEMPLATES: dict[str, tuple[Any, dict[str, str]]] = {
    "settings": (TEMPLATE, {}),
    "list": ([{"name": "rag", "template": "R"}, {"name": "default", "template": TEMPLATE}], {}),
    "object": ({"rag": "R", "default": TEMPLATE}, {}),
    "file": ("S", {"chat_template.jinja": TEMPLATE}),
    "file and more": ("S", {"chat_template.jinja": TEMPLATE, "additional_chat_templates/rag.jinja": "R"}),
    "default twice": (
        "S",
        {"chat_template.jinja": "F", "additional_chat_templates/default.jinja": TEMPLATE},
    ),
    "of a processor": (TEMPLATE, {"chat_template.json": '{"chat_template": "P"}'}),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_template_is_the_same_and_has_the_same_names(name: str, tmp_path: Path) -> None:
    template, files = TEMPLATES[name]
    named = {"bos_token": "<s>", "pad_token": None, "image_token": "<image>", "chat_template": template}
    whole = {**named, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "additional_chat_templates").mkdir()
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    config = write(tmp_path, "llama", content_of("byte level"), whole, {})
    ours = tokenizer_files(tmp_path, config)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.chat_template == theirs.get_chat_template()
    rendered = ChatTemplate(ours.chat_template or "", ours.special).render((Message("user", "x"),))
    assert rendered == "<s>||<image>|x|False"
    chat = [{"role": "user", "content": "x"}]
    assert rendered == theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("kind", "version"),
    [("byte level", "4.57.0"), ("byte level", "5.1.0"), ("metaspace always", "4.57.0"), ("sequence", None)],
)
def test_mistrals_pre_tokenizer_is_corrected_where_transformers_corrects_it(
    kind: str, version: str | None, tmp_path: Path
) -> None:
    content = json.loads(json.dumps(content_of("byte level" if kind == "sequence" else kind)))
    if kind == "sequence":
        digits = {"type": "Digits", "individual_digits": True}
        steps = [digits, content["pre_tokenizer"]]
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    vocab = content["model"]["vocab"]
    vocab |= {f"filler {index}": index for index in range(len(vocab), 100_001)}
    config = {"model_type": "mistral"} | ({"transformers_version": version} if version else {})
    asked = {"fix_mistral_regex": True}
    write(tmp_path, "mistral", content, asked, {"config.json": config})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_str(tokenizer_files(tmp_path, config).json.decode())
    for text in ("TheQuick brownFox's 1234", " lead  é\n\n x/", "can't"):
        assert ours.encode(text).ids == theirs.encode(text)
        assert ours.pre_tokenizer.pre_tokenize_str(
            text
        ) == theirs.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)


VOCAB_FILES = {
    "gpt2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "bart": "BartTokenizer",
    "llama": "GPT2Tokenizer",
}


@pytest.mark.parametrize("family", VOCAB_FILES)
def test_the_command_for_other_files_makes_the_same_tokenizer(family: str, tmp_path: Path) -> None:
    """vocab.json and merges.txt. Those of SentencePiece need a newer protobuf than this environment's."""
    model = content_of("byte level")["model"]
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    config = {"model_type": family}
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = {"tokenizer_class": VOCAB_FILES[family], "bos_token": "<a>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(
        BadInput, match=r"tokenizer\.json: no such file: make it in a separate env"
    ) as refused:
        tokenizer_files(tmp_path, config)
    exec(str(refused.value).partition('python -c "')[2].partition('"')[0])
    assert_equal(tokenizer_files(tmp_path, config), theirs, "the fox<a>  12 été\n", decodes=True)


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian_reads_its_own_files_even_where_there_is_a_tokenizer_json(tmp_path: Path) -> None:
    KINDS_OF_SEQ2SEQ["marian"].write_tokenizer(tmp_path)
    alone = tokenizer_files(tmp_path, {"model_type": "marian"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content_of("unigram")))
    assert tokenizer_files(tmp_path, {"model_type": "marian"}) == alone
    of_json = {"model_type": "marian", "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").unlink()
    assert tokenizer_files(tmp_path, of_json) != alone
    for config, name in (({"model_type": "marian"}, "MarianTokenizer"), (of_json, "TokenizersBackend")):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert type(transformers.AutoTokenizer.from_pretrained(tmp_path)).__name__ == name
