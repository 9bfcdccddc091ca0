"""What a folder says of its tokenizer: which file counts, and what is refused. transformers is asked in
tests/parity/test_tokenizers.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported
from build.sources.folder import open_folder
from build.sources.folder_tokenizer import tokenizer_files
from build.tokenizer_fit import fitted
from tests.models import tiny

Json = dict[str, Any]
COUNT = len(tiny.VOCAB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint")


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


def read(folder: Path) -> TokenizerFiles:
    return tokenizer_files(folder, json.loads((folder / "config.json").read_text()))


def ids(files: TokenizerFiles, text: str) -> list[int]:
    return list(Tokenizer.from_str(files.json.decode()).encode(text).ids)


def test_a_file_that_says_it_all_is_kept_byte_for_byte(folder: Path) -> None:
    assert read(folder).json == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("added_tokens.json", {"<tool>": COUNT}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<tool>"]}),
        ("special_tokens_map.json", {"pad_token": {"content": "<tool>", "lstrip": False}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {COUNT: {"content": "<tool>"}}}),
        ("tokenizer_config.json", {"extra_special_tokens": ["<tool>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"tool_token": "<tool>"}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<tool>"]}),
        ("tokenizer_config.json", {"tool_token": "<tool>"}),
    ],
)
def test_a_token_that_any_file_adds_is_one_token(folder: Path, name: str, changes: Json) -> None:
    assert len(ids(read(folder), "in<tool>")) > 2
    edit(folder / name, **changes)
    assert ids(read(folder), "in<tool>") == [tiny.VOCAB.index("in"), COUNT]


def test_a_token_without_a_row_is_spelled(folder: Path) -> None:
    edit(folder / "added_tokens.json", **{"<tool>": COUNT})
    tokenizer = Tokenizer.from_str(fitted(read(folder).json, COUNT).decode())
    found = tokenizer.encode("<tool>").ids
    assert max(found) < COUNT
    assert tokenizer.decode(found) == "<tool>"


def test_a_token_without_a_row_around_every_text_is_refused(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", tokenizer_class="BartTokenizer")
    with pytest.raises(BadInput, match=rf"adds id \d+ to texts, config\.json has a vocab_size of {COUNT}"):
        fitted(read(folder).json, COUNT)


def test_ids_are_those_of_the_library_not_of_the_file(folder: Path) -> None:
    content = tiny.tokenizer_json()
    content["added_tokens"].append({**content["added_tokens"][0], "id": 900, "content": "<tool>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    added = json.loads(read(folder).json)["added_tokens"]
    assert [token["id"] for token in added] == [0, 1, 2, COUNT]


def test_a_token_with_a_name_is_special_whatever_its_flags(folder: Path) -> None:
    content = tiny.tokenizer_json()
    content["added_tokens"][2]["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert [token["special"] for token in json.loads(read(folder).json)["added_tokens"]] == [True] * 3


def test_special_tokens_have_the_names_of_every_file(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", image_token="<|im_end|>", unk_token=None)
    edit(folder / "special_tokens_map.json", eos_token={"content": "<|endoftext|>"}, pad_token="<|im_end|>")
    assert read(folder).special == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "image_token": "<|im_end|>",
    }


def test_the_files_that_count_are_of_the_origin(folder: Path) -> None:
    edit(folder / "added_tokens.json", **{"<tool>": COUNT})
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("R")
    files = open_folder(folder).origin.files
    assert {"tokenizer.json", "added_tokens.json", "additional_chat_templates/rag.jinja"} <= set(files)


class TestChatTemplates:
    def test_a_list_or_an_object_has_names(self, folder: Path) -> None:
        listed = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
        edit(folder / "tokenizer_config.json", chat_template=listed)
        assert read(folder).chat_template == "D"
        edit(folder / "tokenizer_config.json", chat_template={"default": "O"})
        assert read(folder).chat_template == "O"
        edit(folder / "tokenizer_config.json", chat_template=listed[:1])
        assert read(folder).chat_template is None

    def test_files_go_before_settings(self, folder: Path) -> None:
        further = folder / "additional_chat_templates"
        further.mkdir()
        (further / "rag.jinja").write_text("R")
        assert read(folder).chat_template is None
        (folder / "chat_template.jinja").write_text("F")
        assert read(folder).chat_template == "F"
        (further / "default.jinja").write_text("D")
        assert read(folder).chat_template == "D"

    def test_the_template_of_a_processor_is_not_taken_for_the_tokenizers(self, folder: Path) -> None:
        edit(folder / "chat_template.json", chat_template="P")
        assert read(folder).chat_template == tiny.CHAT_TEMPLATE

    @pytest.mark.parametrize("template", [{"default": 1}, 7])
    def test_a_template_that_is_no_string_is_refused(self, folder: Path, template: object) -> None:
        edit(folder / "tokenizer_config.json", chat_template=template)
        with pytest.raises(BadInput, match=r"tokenizer_config\.json: chat_template: must be a string"):
            read(folder)

    def test_a_list_without_names_is_damaged(self, folder: Path) -> None:
        edit(folder / "tokenizer_config.json", chat_template=[{"template": "D"}])
        with pytest.raises(BadInput, match=r"tokenizer_config\.json is damaged .*'name'"):
            read(folder)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"tokenizer_class": "XGLMTokenizer"},
                "tokenizer class XGLMTokenizer is not supported: LlamaTok",
            ),
            (
                {"tokenizer_class": "MarianTokenizer"},
                r"MarianTokenizer reads source\.spm, target\.spm, vocab\.json",
            ),
            ({"split_special_tokens": True}, "split_special_tokens: true is not supported: set it to false"),
            (
                {"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True},
                "clean_up_tokenization_spaces: true is not supported: set it to false",
            ),
            ({"fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.0.0.json"]}, "fast_tokenizer_files"),
            (
                {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
                "auto_map: the checkpoint's own tokenizer class is not run here",
            ),
        ],
    )
    def test_what_is_not_done_here(self, folder: Path, changes: Json, message: str) -> None:
        edit(folder / "tokenizer_config.json", clean_up_tokenization_spaces=True)
        read(folder)  # of a BPE vocabulary, transformers does not do it either
        edit(folder / "tokenizer_config.json", **changes)
        with pytest.raises(BadInput, match=message):
            read(folder)

    def test_spaces_are_cleaned_up_of_no_other_vocabulary(self, folder: Path) -> None:
        content = {"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}}
        (folder / "tokenizer.json").write_text(json.dumps(content))
        edit(folder / "tokenizer_config.json", clean_up_tokenization_spaces=True)
        with pytest.raises(Unsupported, match="clean_up_tokenization_spaces: true is not supported"):
            read(folder)

    def test_a_class_of_another_kind_of_vocabulary(self, folder: Path) -> None:
        edit(folder / "tokenizer_config.json", tokenizer_class="T5Tokenizer")
        with pytest.raises(BadInput, match=r"T5Tokenizer: ValueError: a vocabulary of BPE, must be Unigram"):
            read(folder)

    @pytest.mark.parametrize(
        "changes",
        [
            {"added_tokens_decoder": {"x": {"content": "<a>"}}},
            {"added_tokens_decoder": {"1": {"contents": "<a>"}}},
            {"added_tokens_decoder": []},
            {"eos_token": 3},
            {"extra_special_tokens": [3]},
        ],
    )
    def test_what_is_no_token(self, folder: Path, changes: Json) -> None:
        edit(folder / "tokenizer_config.json", **changes)
        with pytest.raises(BadInput, match=r"tokenizer_config\.json is damaged"):
            read(folder)

    @pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"{}"])
    def test_a_damaged_file(self, folder: Path, content: bytes) -> None:
        (folder / "tokenizer.json").write_bytes(content)
        with pytest.raises(BadInput, match=r"tokenizer\.json"):
            read(folder)


def test_without_a_tokenizer_json_there_is_a_command(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    command = rf"t\.AutoTokenizer\.from_pretrained\('{folder}'\)\.save_pretrained\('{folder}'\)"
    with pytest.raises(BadInput, match=rf"tokenizer\.json: no such file: make it .*{command}"):
        read(folder)
