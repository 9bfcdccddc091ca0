"""files.json: what is sealed, and that nothing in it can lead out of a folder."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliver.faults import BadInput
from deliver.listing import Entry, Listing, is_safe, parse, problems, seal
from tests.fakes.stores import CONTENT, EMPTY, WEIGHTS, repository

DIGEST = "0" * 64
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
paths = st.lists(names, min_size=2, max_size=4).map("/".join)


def _encoded(**changes: Any) -> bytes:
    entry = {"sha256": DIGEST, "bytes": 1}
    return json.dumps({"files_version": 1, "files": {"m/1/a": entry}, "folders": [], **changes}).encode()


def test_seals_files_and_empty_folders_but_nothing_hidden(tmp_path: Path) -> None:
    (tmp_path / "small_engine/.building-2").mkdir(parents=True)
    (tmp_path / "small_engine/.building-2/model.onnx").write_bytes(b"half")
    listing = parse((repository(tmp_path) / "files.json").read_bytes())
    assert (set(listing.files), set(listing.folders)) == (set(CONTENT), set(EMPTY))
    assert listing.files[WEIGHTS].size == len(CONTENT[WEIGHTS])
    assert problems(listing, tmp_path) == []


def test_a_link_and_an_empty_folder_are_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no model"):
        seal(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m/secret").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="a link"):
        seal(tmp_path)


@given(st.dictionaries(paths, st.integers(0, 2**40), max_size=6))
def test_what_is_encoded_is_read_again(sizes: dict[str, int]) -> None:
    listing = Listing({path: Entry(DIGEST, size) for path, size in sizes.items()}, [])
    above = {str(parent) for path in sizes for parent in PurePosixPath(path).parents}
    if above & set(sizes):
        with pytest.raises(BadInput, match="both a file and a folder"):
            parse(listing.encode())
    else:
        assert parse(listing.encode()) == listing


pieces = st.one_of(names, st.sampled_from(["..", ".", "", "/", "\\", "\0", "a/../..", ".git", "C:\\", "~"]))


@given(st.lists(pieces, max_size=5).map("/".join))
def test_a_safe_path_stays_inside(path: str) -> None:
    if is_safe(path):
        found = Path("/models", path).resolve()
        assert found.is_relative_to("/models")
        assert str(found) == f"/models/{path}"


@pytest.mark.parametrize(
    "path", ["../x/y", "m/../../x", "/etc/passwd", "m//a", "m/./a", "m/a\\..\\b", "a", "m/.ssh/a", "m/a\n"]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    entry = {"sha256": DIGEST, "bytes": 1}
    for planted in ({"files": {path: entry}}, {"folders": [path]}):
        with pytest.raises(BadInput, match="is no path inside a model's folder"):
            parse(_encoded(**planted))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"files_version": 2}, "not of version 1"),
        ({"files": []}, "is missing"),
        ({"files": {"m/a": {"sha256": "0", "bytes": 1}}}, "m/a: sha256 '0', must be"),
        ({"files": {"m/a": {"sha256": DIGEST, "bytes": -1}}}, "m/a: bytes -1, must be"),
        ({"files": {"m/a": None}}, "m/a: sha256 None"),
        ({"folders": ["m/1/a"]}, "both a file and a folder"),
        ({"folders": ["m/1/a/b"]}, "both a file and a folder"),
    ],
)
def test_a_bad_listing_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        parse(_encoded(**changes))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with pytest.raises(BadInput):
        parse(content)


def test_a_model_is_its_steps_too_and_comes_after_them() -> None:
    tops = ("a", "a_engine", "a_tokenizer", "ab", "ab_engine")
    listing = Listing({f"{top}/config.pbtxt": Entry(DIGEST, 1) for top in tops})
    assert listing.only(["a"]).tops == ["a_engine", "a_tokenizer", "a"]
    assert listing.only([]) is listing
    with pytest.raises(BadInput, match="--model b: not in the source, which has a, ab"):
        listing.only(["b"])


def test_problems_name_each_file(tmp_path: Path) -> None:
    listing = parse((repository(tmp_path) / "files.json").read_bytes())
    (tmp_path / WEIGHTS).write_bytes(CONTENT[WEIGHTS][:-1] + b"?")
    (tmp_path / "small/config.pbtxt").unlink()
    (tmp_path / "small/1").rmdir()
    (tmp_path / "small_engine/3").mkdir()
    (tmp_path / "small_engine/3/model.onnx").touch()
    assert problems(listing, tmp_path) == [
        "small/1/: missing",
        "small/config.pbtxt: missing",
        f"{WEIGHTS}: not what its sha256 says",
        "small_engine/3/model.onnx: not listed",
    ]
