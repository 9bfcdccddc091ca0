"""What the tokenizer classes of transformers 5 make of a tokenizer.json.

`AutoTokenizer` chooses a class by `tokenizer_class` and the family of the model. TokenizersBackend, which was
called PreTrainedTokenizerFast, takes the file unchanged. The others take only vocabulary, merges and
post-processor, and define normaliser, pre-tokenizer, decoder and special tokens themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import AddedToken

from build.architecture import FAMILIES
from build.sources.tokenizer_json import (
    SPACE,
    Json,
    bpe,
    byte_level,
    metaspace,
    replace,
    sentencepiece_decoder,
    sequence,
    split,
    unigram,
)

Named = Mapping[str, AddedToken | str | None]

BACKEND: Final = "TokenizersBackend"
MARIAN: Final = "MarianTokenizer"
# Other classes that transformers has, without "Tokenizer". One that it lacks reads as TokenizersBackend.
_FOREIGN = """
    Albert Barthez Bartpho Bert BertGeneration BertJapanese Bertweet BigBird BioGpt Blenderbot
    BlenderbotSmall ByT5 CLIP CTRL Camembert Canine Clvp CodeGen Cohere ConvBert Cpm CpmAnt
    DPRContextEncoder DPRQuestionEncoder DPRReader Deberta DebertaV2 Dia DistilBert Esm Esmc FNet FSMT
    FastSpeech2Conformer Flaubert Funnel GPTNeoXJapanese GPTSw3 Herbert Lasr LayoutLMv2 LayoutLMv3 LayoutXLM
    Luke Lxmert M2M100 MLuke MPNet MarkupLM Mgpstr MobileBert MyT5 Nllb Nougat OpenAIGPT PLBart Parakeet
    Perceiver Phobert ProphetNet Qwen3_5 Reformer RemBert RoCBert RoFormer SeamlessM4T Siglip Siglip2
    Speech2Text SpeechT5 Splinter SqueezeBert Tapas Tipsv2 Udop VideoPrism Vits Wav2Vec2CTC
    Wav2Vec2PhonemeCTC Whisper XGLM XLM XLMRoberta XLNet
"""
FOREIGN: Final = frozenset(f"{name}Tokenizer" for name in _FOREIGN.split())
_END = "<|endoftext|>"


@dataclass(frozen=True)
class Given:
    """A tokenizer.json, the special tokens by their names, the further ones that `additional_special_tokens`
    lists, and tokenizer_config.json.
    """

    content: Json
    named: Named
    listed: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def prefix_space(self) -> bool | None:
        value = self.settings.get("add_prefix_space")
        return None if value is None else bool(value)


@dataclass(frozen=True)
class TokenizerClass:
    """`model` is the kind of vocabulary it takes, `named` are its special tokens where no file names others.

    `parts` are those of a tokenizer.json that it lays down, `extras` further special tokens. `around` is what
    a text stands in: `$A` the text, names of special tokens, `src_lang`; None where the file says it. A class
    that `marks_all` adds every special token once more, as one that strips no space around it.
    """

    model: str
    named: Named
    parts: Callable[[Given], Json]
    extras: Callable[[Given], list[str]] = lambda given: list(given.listed)
    around: tuple[str, ...] | None = None
    marks_all: bool = False


def class_name(config: Mapping[str, Any], settings: Mapping[str, Any], tokenizer_json: str) -> str:
    """The class that AutoTokenizer takes: BACKEND, MARIAN, or one of CLASSES or FOREIGN.

    `config` is config.json, `settings` tokenizer_config.json.
    """
    family = config.get("model_type")
    declared = FAMILIES.get(str(family))
    registered = declared.tokenizer if declared and declared.tokenizer else BACKEND
    given = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if given is None or (declared and declared.always_tokenizer and not has_program(settings)):
        return registered
    name = str(given).removesuffix("Fast")
    if name == "LlamaTokenizer" and '"ByteLevel"' in tokenizer_json and not has_program(settings):
        return BACKEND
    return name if name == MARIAN or name in CLASSES or name in FOREIGN else BACKEND


def has_program(settings: Mapping[str, Any]) -> bool:
    """Whether the checkpoint brings its own tokenizer class, in Python."""
    listed = settings.get("auto_map")
    return bool(listed.get("AutoTokenizer") if isinstance(listed, dict) else listed)


def _bpe(given: Given, **flags: Any) -> Json:
    """The file's vocabulary and merges, and no flag but these."""
    model = given.content["model"]
    return bpe(model["vocab"], model["merges"], **flags)


def _unigram(given: Given, unknown: int) -> Json:
    return unigram(given.content["model"]["vocab"], unknown)


def _precompiled(given: Given) -> Json | None:
    """SentencePiece's table of characters, which the file's normaliser has."""
    normaliser = given.content.get("normalizer") or {}
    steps = normaliser.get("normalizers", [normaliser])
    return next((step for step in steps if step.get("type") == "Precompiled"), None)


def _llama(given: Given) -> Json:
    prefixed = given.prefix_space is not False
    scheme = "always" if given.settings.get("legacy") else "first"
    return {
        "normalizer": None,
        "pre_tokenizer": metaspace(scheme if prefixed else "never", split=False),
        "decoder": sentencepiece_decoder(strip=prefixed),
        "model": _bpe(given, fuse_unk=True, byte_fallback=True),
    }


def _code_llama(given: Given) -> Json:
    scheme = "never" if given.prefix_space is False else "first"
    return {
        "normalizer": None,
        "pre_tokenizer": metaspace(scheme, split=False),
        "decoder": sentencepiece_decoder(strip=True),
        "model": _bpe(given, fuse_unk=True, byte_fallback=True, unk_token=str(given.named["unk_token"])),
    }


def _gemma(given: Given) -> Json:
    return {
        "normalizer": replace({"String": " "}, SPACE),
        "pre_tokenizer": split({"String": " "}, "MergedWithPrevious"),
        "decoder": sentencepiece_decoder(strip=False),
        "model": _bpe(given, fuse_unk=True, byte_fallback=True, unk_token=str(given.named["unk_token"])),
    }


def _gpt2(given: Given) -> Json:
    return {
        "normalizer": None,
        "pre_tokenizer": byte_level(bool(given.prefix_space)),
        "decoder": byte_level(),
        "model": _bpe(given),
    }


def _gpt_neox(given: Given) -> Json:
    return _gpt2(given) | {"normalizer": {"type": "NFC"}}


_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _qwen2(given: Given) -> Json:
    words = split({"Regex": _QWEN2_WORDS}, "Isolated")
    bytes_of = byte_level(bool(given.prefix_space), use_regex=False)
    return _gpt_neox(given) | {"pre_tokenizer": sequence("pretokenizers", words, bytes_of)}


def _mbart(given: Given) -> Json:
    return {
        "normalizer": None,
        "pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, metaspace()),
        "decoder": metaspace(),
        "model": _unigram(given, 3),
    }


def _t5(given: Given) -> Json:
    return _mbart(given) | {
        "normalizer": _precompiled(given),
        "model": _unigram(given, 2),
    }


def _mbart50(given: Given) -> Json:
    return {
        "normalizer": sequence("normalizers", _precompiled(given), replace({"Regex": " {2,}"}, " ")),
        "pre_tokenizer": metaspace(),
        "decoder": metaspace(),
        "model": _unigram(given, 3),
    }


def _pegasus(given: Given) -> Json:
    first = _precompiled(given) or replace({"Regex": "\n"}, " ")
    unknown = given.content["model"]["vocab"].index([str(given.named["unk_token"]), 0.0], 1)
    return _mbart50(given) | {
        "normalizer": sequence("normalizers", first, replace({"Regex": " {2,}"}, " ")),
        "model": _unigram(given, unknown),
    }


_MISTRAL_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def with_mistral_words(content: Json) -> Json:
    """The tokenizer.json with the words that `fix_mistral_regex` asks for."""
    before = content["pre_tokenizer"]
    if before is None:
        return content
    spaced = byte_level(use_regex=False) if before["type"] == "Metaspace" else before
    rest = before["pretokenizers"][1:] if before["type"] == "Sequence" else [spaced]
    words = split({"Regex": _MISTRAL_WORDS}, "Isolated")
    return content | {"pre_tokenizer": sequence("pretokenizers", words, *rest)}


_INFILLING = {
    "prefix_token": f"{SPACE}<PRE>",
    "middle_token": f"{SPACE}<MID>",
    "suffix_token": f"{SPACE}<SUF>",
    "eot_token": f"{SPACE}<EOT>",
    "fill_token": "<FILL_ME>",
}
_LANGUAGES = """
    ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM
    ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN
"""
_LATER_LANGUAGES = """
    af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE
    sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI
"""


def _code_llama_extras(given: Given) -> list[str]:
    return [*given.listed, *_INFILLING.values()]


def _mbart_extras(given: Given) -> list[str]:
    return [*_LANGUAGES.split(), *given.listed]


def _mbart50_extras(given: Given) -> list[str]:
    return [*given.listed, *_LANGUAGES.split(), *_LATER_LANGUAGES.split()]


def _t5_extras(given: Given) -> list[str]:
    if any("<extra_id_" in token for token in given.listed):
        return list(given.listed)
    return [*given.listed, *(f"<extra_id_{index}>" for index in range(given.settings.get("extra_ids", 100)))]


def _pegasus_extras(given: Given) -> list[str]:
    sentence = given.settings.get("mask_token_sent", "<mask_1>")
    first = [] if sentence is None or sentence in given.listed else [sentence]
    return [*first, *(f"<unk_{index}>" for index in range(2, given.settings.get("offset", 103)))]


_LLAMA_LIKE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_GPT_LIKE = {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": None}
_T5_LIKE = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_ROBERTA_LIKE = {**_LLAMA_LIKE, "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>"}
_GEMMA_LIKE = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
_QWEN2_LIKE = {**_GPT_LIKE, "bos_token": None, "pad_token": _END}
_MASK = AddedToken("<mask>", lstrip=True)
_ROBERTA = TokenizerClass(
    "BPE", {**_ROBERTA_LIKE, "mask_token": "<mask>"}, _gpt2, around=("cls_token", "$A", "sep_token")
)
CLASSES: Final[Mapping[str, TokenizerClass]] = {
    "LlamaTokenizer": TokenizerClass("BPE", _LLAMA_LIKE, _llama),
    "CodeLlamaTokenizer": TokenizerClass(
        "BPE", {**_LLAMA_LIKE, **_INFILLING}, _code_llama, _code_llama_extras, ("bos_token", "$A")
    ),
    "GPT2Tokenizer": TokenizerClass("BPE", _GPT_LIKE, _gpt2),
    "GPTNeoXTokenizer": TokenizerClass(
        "BPE", {**_GPT_LIKE, "pad_token": "<|padding|>"}, _gpt_neox, around=("$A",)
    ),
    "Qwen2Tokenizer": TokenizerClass("BPE", _QWEN2_LIKE, _qwen2, marks_all=True),
    "GemmaTokenizer": TokenizerClass("BPE", {**_GEMMA_LIKE, "mask_token": "<mask>"}, _gemma),
    **dict.fromkeys(("RobertaTokenizer", "BartTokenizer", "LEDTokenizer", "MvpTokenizer"), _ROBERTA),
    "MBartTokenizer": TokenizerClass(
        "Unigram",
        {**_ROBERTA_LIKE, "mask_token": _MASK},
        _mbart,
        _mbart_extras,
        ("$A", "eos_token", "src_lang"),
    ),
    "MBart50Tokenizer": TokenizerClass(
        "Unigram",
        {**_ROBERTA_LIKE, "bos_token": None, "mask_token": _MASK},
        _mbart50,
        _mbart50_extras,
        ("src_lang", "$A", "eos_token"),
    ),
    "PegasusTokenizer": TokenizerClass(
        "Unigram", {**_T5_LIKE, "mask_token": "<mask_2>"}, _pegasus, _pegasus_extras, ("$A", "eos_token")
    ),
    "T5Tokenizer": TokenizerClass("Unigram", _T5_LIKE, _t5, _t5_extras, ("$A", "eos_token")),
}
