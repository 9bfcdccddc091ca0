"""tokenizer.json and chat template of a folder, as transformers' AutoTokenizer reads its files.

tokenizer.json alone is not complete: special and added tokens may be in tokenizer_config.json,
special_tokens_map.json and added_tokens.json, and the class of the tokenizer may define the rest. The result
is one tokenizer.json for the `tokenizers` library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported
from build.sources import marian_tokenizer
from build.sources.declared_tokens import FILES, FLAGS, NAMES, DeclaredTokens, Token, declared_tokens
from build.sources.files import conversion, read_object
from build.sources.tokenizer_classes import (
    BACKEND,
    CLASSES,
    FOREIGN,
    MARIAN,
    Given,
    Named,
    TokenizerClass,
    class_name,
    has_program,
    with_mistral_words,
)
from build.sources.tokenizer_json import Json, encoded, template, text_part, token_part
from build.token_table import load_tokenizer

_FILE = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_TEMPLATES = "additional_chat_templates"
_LARGE = 100_000


def tokenizer_files(folder: Path, config: Mapping[str, Any]) -> TokenizerFiles:
    """The tokenizer of the folder whose config.json is `config`; BadInput names the faulty file."""
    path = folder / _FILE
    settings = read_object(folder / _SETTINGS) if (folder / _SETTINGS).is_file() else {}
    text = path.read_bytes() if path.is_file() else b""
    name = class_name(config, settings, text.decode(errors="replace"))
    content = read_object(path) if text else {}
    of_marian = marian_tokenizer.is_marian(folder) and (name == MARIAN or not text)
    if not of_marian:
        if not path.is_file():
            raise BadInput(f"{path}: no such file: {conversion(str(folder), str(folder), weights=False)}")
        _refuse_class(folder, settings, config, name)
    try:
        _refuse_settings(folder, settings, "Unigram" if of_marian else _kind(content))
        tokens = declared_tokens(folder, settings, content)
        if of_marian:
            return marian_tokenizer.tokenizer_files(folder, settings, tokens.texts())
        served, special = _served(text, content, settings, tokens, CLASSES.get(name))
        if _is_to_be_mended(settings, config, served):
            served = encoded(with_mistral_words(json.loads(served)))
        return TokenizerFiles(served, _chat_template(folder, settings), special)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"{folder}: {_FILE} or {_SETTINGS} is damaged ({name}: {reason})") from error


def used_files(folder: Path) -> list[Path]:
    """The files of the folder that say how text becomes ids."""
    names = [_FILE, _SETTINGS, *FILES, _TEMPLATE]
    names += marian_tokenizer.FILES if marian_tokenizer.is_marian(folder) else []
    found = [folder / name for name in names if (folder / name).is_file()]
    return found + sorted((folder / _TEMPLATES).glob("*.jinja"))


def _kind(content: Json) -> str:
    """The kind of vocabulary, which the oldest files do not name."""
    model = content["model"]
    return str(model.get("type") or ("BPE" if "merges" in model else "Unigram"))


def _refuse_class(folder: Path, settings: Json, config: Mapping[str, Any], name: str) -> None:
    where = f"{folder}: tokenizer class {name}"
    if name in FOREIGN:
        supported = ", ".join((*CLASSES, MARIAN, "PreTrainedTokenizerFast"))
        raise Unsupported(f"{where} is not supported: {supported} are")
    if name == MARIAN:
        raise BadInput(f"{where} reads {', '.join(marian_tokenizer.FILES[:3])}: one is missing")
    known = str(settings.get("tokenizer_class")).removesuffix("Fast") in ("PreTrainedTokenizer", BACKEND)
    if has_program(settings) and config.get("model_type") == "llama" and name == BACKEND and not known:
        raise Unsupported(
            f"{folder / _SETTINGS}: auto_map: the checkpoint's own tokenizer class is not run here: take"
            f" auto_map out if {_FILE} says the same"
        )


def _refuse_settings(folder: Path, settings: Json, kind: str) -> None:
    """Refuses settings that would change ids or answers and are not supported."""
    where = folder / _SETTINGS
    if settings.get("split_special_tokens"):
        raise Unsupported(f"{where}: split_special_tokens: true is not supported: set it to false")
    forced = settings.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
    if settings.get("clean_up_tokenization_spaces") and (kind != "BPE" or forced):
        raise Unsupported(
            f"{where}: clean_up_tokenization_spaces: true is not supported: set it to false, and answers keep"
            " their spaces before punctuation"
        )
    if set(settings.get("fast_tokenizer_files") or [_FILE]) != {_FILE}:
        raise Unsupported(f"{where}: fast_tokenizer_files: several versions are not supported: keep {_FILE}")


def _is_to_be_mended(settings: Json, config: Mapping[str, Any], tokenizer_json: bytes) -> bool:
    """Whether transformers replaces the pattern of words: in large Mistral tokenizers of older versions."""
    version = str(config.get("transformers_version") or "0").partition(".")[0]
    asked = settings.get("fix_mistral_regex") and config.get("model_type") == "mistral" and int(version) < 5
    return bool(asked) and load_tokenizer(tokenizer_json).get_vocab_size() > _LARGE


def _served(
    text: bytes, content: Json, settings: Json, tokens: DeclaredTokens, kind: TokenizerClass | None
) -> tuple[bytes, dict[str, str]]:
    """The tokenizer.json, as it was where nothing is to be added, and the special tokens by their names."""
    named = _named(tokens.named, kind.named if kind else {}, content.get("padding"))
    extra: Iterable[Token] = tokens.listed
    base = content
    if kind is not None:
        if _kind(content) != kind.model:
            raise ValueError(f"a vocabulary of {_kind(content)}, must be {kind.model}")
        given = Given(content, named, tuple(map(str, tokens.listed)), settings)
        base = content | kind.parts(given) | {"added_tokens": []}
        extra = kind.extras(given)
    extra = list(extra if tokens.extra is None else tokens.extra)
    present = {name: str(token) for name, token in named.items() if token is not None}
    tokenizer = load_tokenizer(text if kind is None else encoded(base))
    versions = list(tokenizer.get_added_tokens_decoder().values())
    for batch in _batches(
        versions, named, extra, tokens.added, marks_all=kind is not None and kind.marks_all
    ):
        tokenizer.add_tokens(batch)
        versions += batch
    base = base | {"added_tokens": list(_entries(tokenizer, versions))}
    if kind is not None and kind.around is not None:
        base = base | {"post_processor": _post_processor(tokenizer, kind.around, present, settings)}
    return (text if base == content else encoded(base)), present


def _named(given: Named, own: Named, padding: Json | None) -> dict[str, Token | None]:
    """Special tokens by name, in transformers' order; where no file says one, its class does."""
    every = {**own, **given}
    if padding and "pad_token" not in every:
        every["pad_token"] = padding["pad_token"]
    for name, token in own.items():  # flags of a class hold where no file says others
        value = every[name]
        if isinstance(token, AddedToken) and (value is token or isinstance(value, str)):
            every[name] = AddedToken(str(value), lstrip=token.lstrip)
    return {name: every[name] for name in (*NAMES, *every) if name in every}


def _batches(
    present: Iterable[AddedToken],
    named: Named,
    extra: list[Token],
    added: Mapping[int, AddedToken],
    marks_all: bool,
) -> Iterator[list[AddedToken]]:
    """The batches of tokens that transformers adds to the tokenizer, in its order."""
    special = [token for token in named.values() if token is not None]
    texts = set(map(str, special))
    first = [added[index] for index in sorted(added)]
    for entry in first:
        entry.special = entry.special or entry.content in texts
    known = {token.content for token in (*present, *first)}
    rest: list[Token] = []
    for token in (*special, *extra):
        if str(token) not in known and token not in rest:
            rest.append(token)
    yield [*first, *(_special(token, texts) for token in rest)]
    if marks_all:
        yield [AddedToken(text, special=True) for text in dict.fromkeys(map(str, (*special, *extra)))]


def _special(token: Token, texts: set[str]) -> AddedToken:
    """The token as a special one; one that is given with flags keeps them."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    token.special = token.special or token.content in texts
    return token


def _entries(tokenizer: Tokenizer, versions: Iterable[AddedToken]) -> Iterator[Json]:
    """The added tokens by id, as last added; one that any version calls special stays special."""
    special = {version.content for version in versions if version.special}
    for index, token in sorted(tokenizer.get_added_tokens_decoder().items()):
        flags = {flag: getattr(token, flag) for flag in FLAGS}
        yield {"id": index, "content": token.content, **flags, "special": token.content in special}


def _post_processor(
    tokenizer: Tokenizer, around: Iterable[str], present: Mapping[str, str], settings: Json
) -> Json:
    """What stands around a text; a language that the vocabulary lacks becomes the unknown token."""
    names = {**present, "src_lang": str(settings.get("src_lang") or "en_XX")}
    single: list[Json] = []
    ids: dict[str, int | None] = {}
    for part in around:
        if part == "$A":
            single.append(text_part("A"))
        elif part in names:
            known = tokenizer.token_to_id(names[part]) is not None
            text = names[part] if known else present["unk_token"]
            single.append(token_part(text))
            ids[text] = tokenizer.token_to_id(text)
    return template(single, [*single, {"Sequence": {"id": "B", "type_id": 0}}], ids)


def _chat_template(folder: Path, settings: Json) -> str | None:
    """The chat template: files precede tokenizer_config.json; of several by name `default` is taken."""
    found = {"default": folder / _TEMPLATE} if (folder / _TEMPLATE).is_file() else {}
    found |= {path.stem: path for path in sorted((folder / _TEMPLATES).glob("*.jinja"))}
    if found:
        return found["default"].read_text(encoding="utf-8") if "default" in found else None
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict):
        template = template.get("default")
    if template is not None and not isinstance(template, str):
        raise BadInput(f"{folder / _SETTINGS}: chat_template: must be a string")
    return template
