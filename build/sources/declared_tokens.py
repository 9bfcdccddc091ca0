"""The special and added tokens that the files of a folder declare, as transformers reads them.

`added_tokens_decoder` in tokenizer_config.json is the whole list of added tokens. Where it is absent, they
are those of added_tokens.json and then tokenizer.json, and special_tokens_map.json takes precedence over
tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken

from build.sources.files import read_object
from build.sources.tokenizer_json import Json

Token = AddedToken | str

NAMES: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")
FILES: Final = ("special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class DeclaredTokens:
    """`named` are special tokens by their names, `extra` those without one where tokenizer_config.json lists
    them, `listed` those of special_tokens_map.json, `added` all that the files declare, by id.
    """

    named: Mapping[str, Token | None]
    extra: tuple[Token, ...] | None
    listed: tuple[Token, ...]
    added: Mapping[int, AddedToken]

    def texts(self) -> set[str]:
        tokens = (*self.named.values(), *(self.extra or ()), *self.listed, *self.added.values())
        return {str(token) for token in tokens if token is not None}


def declared_tokens(folder: Path, settings: Json, content: Json) -> DeclaredTokens:
    """The tokens of a folder; `settings` is tokenizer_config.json, `content` tokenizer.json.

    TypeError, ValueError or LookupError for what is no token.
    """
    given = dict(settings)
    if "additional_special_tokens" in given and not given.get("extra_special_tokens"):
        given["extra_special_tokens"] = given.pop("additional_special_tokens")
    first = {key: value for key, value in given.items() if _is_specific(key) and isinstance(value, str)}
    first |= _named_extra(given)
    first = first or given.get("model_specific_special_tokens") or {}
    if "added_tokens_decoder" in given:
        declared = [(int(index), _added(entry)) for index, entry in given["added_tokens_decoder"].items()]
    else:
        given = _with_map(folder, given)
        first |= _named_extra(given)
        declared = list(_of_old(folder, given))
        declared += [(entry["id"], _added(entry)) for entry in content.get("added_tokens") or []]
    specific = {key: value for key, value in given.items() if _is_specific(key)} | first
    by_text = {token.content: token for _, token in declared}
    named: dict[str, Token | None] = {}
    for name in NAMES:
        if name in given:
            value = _token(given[name])
            named[name] = None if value is None else by_text.get(str(value), value)
    named |= {key: _token(value) for key, value in specific.items() if isinstance(value, (str, dict))}
    key = "extra_special_tokens"
    extra = tuple(_each(given[key])) if key in given else None
    return DeclaredTokens(named, extra, tuple(_each(given.get("additional_special_tokens"))), dict(declared))


def _with_map(folder: Path, given: Json) -> Json:
    """The settings with those of special_tokens_map.json, which take precedence."""
    path = folder / FILES[0]
    found = read_object(path) if path.is_file() else {}
    key = "extra_special_tokens"
    if isinstance(found.get(key), list):
        before = list(given.get(key) or [])
        marked = [token | {"special": True} if isinstance(token, dict) else token for token in found[key]]
        found = found | {key: before + [token for token in marked if token not in before]}
    return given | found


def _of_old(folder: Path, given: Json) -> Iterator[tuple[int, AddedToken]]:
    """The tokens of added_tokens.json, which has ids alone.

    transformers does not take those for special that the settings give as marked objects.
    """
    path = folder / FILES[1]
    values = [given.get(name) for name in NAMES] + list(given.get("extra_special_tokens") or [])
    special = {str(_token(value)) for value in values if value and "__type" not in value}
    for text, index in (read_object(path) if path.is_file() else {}).items():
        yield index, AddedToken(text, normalized=text not in special, special=text in special)


def _is_specific(key: str) -> bool:
    """Whether it names a special token of the model, such as `image_token`, for chat templates."""
    return key.endswith("_token") and key not in NAMES


def _named_extra(given: Json) -> Json:
    """`extra_special_tokens` where it has names; it is then taken out of `given`."""
    value = given.get("extra_special_tokens")
    return dict(given.pop("extra_special_tokens")) if isinstance(value, dict) else {}


def _each(values: Iterable[Any] | None) -> Iterator[Token]:
    for value in values or ():
        token = _token(value)
        if token is not None:
            yield token


def _token(value: Any) -> Token | None:
    """A token is its text or an object with flags."""
    if value is None or isinstance(value, str):
        return value
    return _added(value)


def _added(entry: Mapping[str, Any]) -> AddedToken:
    flags = {flag: entry[flag] for flag in FLAGS if flag in entry}
    return AddedToken(entry["content"], **flags)
