from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import ArtifactError
from engine.core.tokens import TokenTable, complete_length, load_table, parse_table

entries = st.lists(st.binary(max_size=20), max_size=30)


def packed(pieces: list[bytes], magic: bytes = b"HLTK", version: int = 1) -> bytes:
    lengths = struct.pack(f"<{len(pieces)}H", *map(len, pieces))
    return struct.pack("<4sII", magic, version, len(pieces)) + lengths + b"".join(pieces)


@given(entries)
def test_a_packed_table_parses_to_its_entries(pieces: list[bytes]) -> None:
    table = parse_table(packed(pieces))
    assert len(table) == len(pieces)
    assert [table[token] for token in range(len(pieces))] == pieces


def test_a_table_loads_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    path.write_bytes(packed([b"x", b"" * 2, b"yz"]))
    assert load_table(path).join([2, 1, 0]) == b"yzx"


def test_the_longest_entry_of_the_format() -> None:
    assert parse_table(packed([b"a" * 65535, b"b"]))[0] == b"a" * 65535


def test_a_padding_id_past_the_table_adds_no_text() -> None:
    assert TokenTable([b"a"]).join([0, 1, 999, 0]) == b"aa"


@given(entries, st.data())
def test_a_table_cut_anywhere_is_refused(pieces: list[bytes], data: st.DataObject) -> None:
    whole = packed(pieces)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ArtifactError, match=r"^INTERNAL: tokens\.bin: "):
        parse_table(whole[:cut])


def test_a_table_with_bytes_behind_it_is_refused() -> None:
    with pytest.raises(ArtifactError, match="cut short or too long for 1 tokens"):
        parse_table(packed([b"a"]) + b"x")


@pytest.mark.parametrize("data", [packed([b"a"], magic=b"HLTX"), packed([b"a"], version=2)])
def test_another_magic_or_version_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"must be b'HLTK' version 1"):
        parse_table(data)


def test_a_count_beyond_all_bytes_is_refused() -> None:
    with pytest.raises(ArtifactError, match="4294967295 tokens"):
        parse_table(struct.pack("<4sII", b"HLTK", 1, 2**32 - 1) + bytes(64))


# Bytes as answers have them: whole text, and anything at all.
raw = st.binary(max_size=24) | st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass"))
lead = st.sampled_from(list(b"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\xff"))
lead_bytes = st.lists(lead, max_size=10).map(bytes)


def decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")


@given(raw | lead_bytes, raw | lead_bytes)
def test_text_cut_at_the_complete_length_joins_again(begin: bytes, rest: bytes) -> None:
    cut = complete_length(begin)
    assert decode(begin[:cut]) + decode(begin[cut:] + rest) == decode(begin + rest)


@given(st.text(max_size=8), st.data())
def test_an_unfinished_character_waits(text: str, data: st.DataObject) -> None:
    whole = text.encode()
    cut = data.draw(st.integers(0, len(whole)))
    sent = whole[: complete_length(whole[:cut])]
    assert text.startswith(sent.decode())
    assert 0 <= cut - len(sent) < 4


@pytest.mark.parametrize(
    ("data", "length"),
    [(b"", 0), (b"ab", 2), (b"a\xe2\x82", 1), (b"\xf0\x9f\x98", 0), (b"\xff", 1), (b"\xe2\x82a", 3)],
)
def test_complete_lengths(data: bytes, length: int) -> None:
    assert complete_length(data) == length
