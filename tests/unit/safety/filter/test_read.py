from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.filter.errors import FilterError
from safety.filter.read import Broken, Chunk, Document, Format, Limits, Position, Source, Split, chunks

LINES = st.lists(st.sampled_from(["", " \t", "a", "bc d", "é", "x" * 9]), max_size=30)


def read(path: Path, form: Format, limits: Limits, start: Position | None = None) -> list[Chunk]:
    return list(chunks([Source(path, path.name, form)], start or Position(), limits))


def texts(found: Sequence[Chunk]) -> list[str]:
    documents = [document for chunk in found for document in chunk.documents]
    assert all(isinstance(document, Document) for document in documents), documents
    return [document.text for document in documents if isinstance(document, Document)]


def from_everywhere(path: Path, form: Format, limits: Limits, wanted: list[str]) -> None:
    """Reading in small chunks gives the same texts, and so does going on after each of them."""
    whole = read(path, form, limits)
    assert texts(whole) == wanted
    for i, chunk in enumerate(whole):
        assert texts(read(path, form, limits, chunk.after)) == texts(whole[i + 1 :])


@settings(max_examples=40, deadline=None)
@given(lines=LINES, end=st.sampled_from(["", "\n", "\n\n"]), size=st.integers(1, 40))
def test_paragraphs_are_what_blank_lines_part(lines: list[str], end: str, size: int) -> None:
    content = "\n".join(lines) + end
    blocks = re.split(r"(?:^|\n)(?:[ \t]*(?:\n|$))+", content)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        path.write_text(content, "utf-8")
        limits = Limits(chunk_bytes=size)
        wanted = [block.rstrip("\n") for block in blocks if block.strip()]
        from_everywhere(path, Format.TEXT, limits, wanted)


@settings(max_examples=40, deadline=None)
@given(lines=LINES, size=st.integers(1, 40))
def test_each_line_is_a_document_when_asked(lines: list[str], size: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        path.write_text("\n".join(lines), "utf-8")
        limits = Limits(split=Split.LINES, chunk_bytes=size)
        from_everywhere(path, Format.TEXT, limits, [line for line in lines if line.strip()])


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.text(max_size=12), max_size=20), size=st.integers(1, 9))
def test_a_line_of_json_has_its_text_in_a_field(values: list[str], size: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lines.jsonl"
        path.write_text("".join(f"{json.dumps({'id': 1, 'body': value})}\n\n" for value in values))
        from_everywhere(path, Format.JSONL, Limits(field="body", chunk_documents=size), values)


@pytest.mark.parametrize("group", [1, 3, 7, 100])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_row_has_its_text_in_a_column(tmp_path: Path, group: int, kind: pa.DataType) -> None:
    values = [f"row {i} é" for i in range(20)]
    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"id": list(range(20)), "text": pa.array(values, kind)}), path, row_group_size=group
    )
    from_everywhere(path, Format.PARQUET, Limits(chunk_documents=2), values)


def test_places_are_lines_and_rows(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("\n\none\ntwo\n\n\nthree\n")
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), rows, row_group_size=2)
    assert [d.place for d in read(text, Format.TEXT, Limits())[0].documents] == ["line 3", "line 7"]
    assert [d.place for d in read(rows, Format.PARQUET, Limits())[0].documents] == ["row 1", "row 2", "row 3"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    text, lines = tmp_path / "text", tmp_path / "lines.jsonl"
    text.write_text("\ufefftext\n")
    lines.write_text('\ufeff{"text": "text"}\n')
    assert texts(read(text, Format.TEXT, Limits())) == ["text"]
    assert texts(read(lines, Format.JSONL, Limits())) == ["text"]


BROKEN = {
    "encoding": (
        Format.TEXT,
        b"good\n\nfine\nbad \xff here\n\ngood\n",
        "line 4",
        "byte 0xff at byte 5 of the line",
    ),
    "cut": (Format.TEXT, b"good\n\nna\xc3", "line 3", "byte 0xc3 at byte 3"),
    "long": (Format.TEXT, b"good\n\n" + b"word \n" * 40 + b"\ngood\n", "line 3", "longer than 100 bytes"),
    "one long line": (Format.TEXT, b"good\n\n" + b"word " * 400 + b"\n\ngood\n", "line 3", "longer than 100"),
    "no JSON": (Format.JSONL, b'{"text": "a"}\n{"text": \n', "line 2", "not JSON"),
    "no object": (Format.JSONL, b'{"text": "a"}\n["a"]\n', "line 2", "this is list"),
    "no field": (Format.JSONL, b'{"text": "a"}\n{"txt": "a"}\n', "line 2", "no field 'text'; there are txt"),
    "no string": (Format.JSONL, b'{"text": 3}\n', "line 1", "this is int"),
    "surrogate": (Format.JSONL, b'{"text": "a\\ud800"}\n', "line 1", "character 1"),
    "deep": (Format.JSONL, b"[" * 799 + b"\n", "line 1", "not JSON"),
    "digits": (Format.JSONL, b'{"text": "a", "n": ' + b"9" * 700 + b"\n", "line 1", "not JSON"),
    "bytes in JSON": (Format.JSONL, b'{"text": "a\xe9"}\n', "line 1", "byte 0xe9 at byte 12"),
    "long text": (Format.JSONL, b'{"text": "' + b"a" * 101 + b'"}\n', "line 1", "longer than 100"),
    "long line": (
        Format.JSONL,
        b'{"text": "' + b"a" * 900 + b'"}\n{"text": "a"}\n',
        "line 1",
        "longer than 100",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path: Path, case: str) -> None:
    form, content, place, reason = BROKEN[case]
    path = tmp_path / "file"
    path.write_bytes(content)
    documents = [d for chunk in read(path, form, Limits(longest=100)) for d in chunk.documents]
    broken = [document for document in documents if isinstance(document, Broken)]
    assert [document.place for document in broken] == [place]
    assert reason in broken[0].reason
    assert all(len(document.text) <= 100 for document in documents if isinstance(document, Document))


def test_what_follows_a_broken_document_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for name in ("encoding", "long", "one long line"):
        path.write_bytes(BROKEN[name][1])
        documents = read(path, Format.TEXT, Limits(longest=100))[0].documents
        assert [isinstance(document, Document) for document in documents] == [True, False, True]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_a_parquet_file_that_was_cut_is_named(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(1000)]}), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(FilterError, match=r"rows\.parquet: cannot be read as Parquet"):
        read(path, Format.PARQUET, Limits())


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    values = [f"row {i} {i * 7919 % 1000}" for i in range(2000)]
    pq.write_table(pa.table({"text": values}), path, row_group_size=1000, use_dictionary=False)
    second = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[second : second + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(FilterError, match="row group 1: cannot be read as Parquet"):
        read(path, Format.PARQUET, Limits())


def test_a_column_must_be_there_and_hold_strings(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", None], "id": [1, 2]}), path)
    with pytest.raises(FilterError, match="no column 'body'; there are text, id"):
        read(path, Format.PARQUET, Limits(field="body"))
    with pytest.raises(FilterError, match="column 'id' must hold strings, it holds int64"):
        read(path, Format.PARQUET, Limits(field="id"))
    assert isinstance(read(path, Format.PARQUET, Limits())[0].documents[1], Broken)


def test_chunks_are_small_enough(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("some words here\n\n" * 500)
    limits = Limits(chunk_bytes=200)
    assert max(chunk.taken for chunk in read(path, Format.TEXT, limits)) <= 200 + 17
    few = read(path, Format.TEXT, replace(limits, chunk_bytes=1 << 20, chunk_documents=7))
    assert max(len(chunk.documents) for chunk in few) == 7


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="missing: No such file"):
        read(tmp_path / "missing", Format.TEXT, Limits())
