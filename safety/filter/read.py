"""Documents from text, JSONL and Parquet files, in chunks of bounded size, from any position on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from safety.filter.errors import FilterError

# A chunk is what a worker gets at once. Neither bound is seen in the output.
CHUNK_BYTES = 2 << 20
CHUNK_DOCUMENTS = 8192
_BOM = b"\xef\xbb\xbf"


class Format(StrEnum):
    """How a file holds documents. `auto` goes by the name: .jsonl and .ndjson, .parquet, else text."""

    AUTO = "auto"
    TEXT = "text"
    JSONL = "jsonl"
    PARQUET = "parquet"


class Split(StrEnum):
    """What a document of a text file is: lines up to a blank one, or each line."""

    PARAGRAPHS = "paragraphs"
    LINES = "lines"


@dataclass(frozen=True, slots=True)
class Source:
    """A file, by the name that the report and the output give it."""

    path: Path
    name: str
    format: Format


@dataclass(frozen=True, slots=True)
class Document:
    """`text` as it stands in the file; `place` is its line or row, counted from 1."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A document that cannot be read, where, and why."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where reading goes on: `offset` is a byte (Parquet: a row group), `number` the lines before it
    (Parquet: the rows of the group before it).
    """

    source: int = 0
    offset: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader must know: the split of text files, the field or column of the others, and the bytes
    that a document may have.
    """

    split: Split = Split.PARAGRAPHS
    field: str = "text"
    longest: int = 1 << 20
    chunk_bytes: int = CHUNK_BYTES
    chunk_documents: int = CHUNK_DOCUMENTS


@dataclass(frozen=True, slots=True)
class Chunk:
    """Documents of one source in their order, the place after them, and the bytes of the file they took."""

    source: int
    documents: tuple[Document | Broken, ...]
    after: Position
    taken: int


# A document, the position after it, and the bytes between the two.
_Step = tuple[Document | Broken, Position, int]


def chunks(sources: Sequence[Source], start: Position, limits: Limits) -> Iterator[Chunk]:
    """All documents from `start` on. FilterError names the file that cannot be read, and the place."""
    for index in range(start.source, len(sources)):
        position = start if index == start.source else Position(index)
        try:
            yield from _gathered(index, _steps(sources[index], position, limits), limits)
        except OSError as error:
            raise FilterError(f"{sources[index].path}: {error.strerror or error}") from error


def size_of(source: Source, limits: Limits) -> int:
    """Bytes to read, for the progress: of the file, or of a Parquet file's column before compression."""
    if source.format is not Format.PARQUET:
        return source.path.stat().st_size
    import pyarrow  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(source.path) as file:
            groups = (file.metadata.row_group(group) for group in range(file.num_row_groups))
            columns = (group.column(i) for group in groups for i in range(group.num_columns))
            return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == limits.field)
    except (pyarrow.ArrowException, OSError) as error:
        raise FilterError(f"{source.path}: cannot be read as Parquet: {error}") from error


def _steps(source: Source, start: Position, limits: Limits) -> Iterator[_Step]:
    if source.format is Format.PARQUET:
        yield from _rows(source, start, limits)
        return
    with source.path.open("rb") as file:
        file.seek(start.offset)
        if source.format is Format.JSONL:
            yield from _json_lines(file, start, limits)
        else:
            yield from _blocks(file, start, limits)


def _gathered(source: int, steps: Iterator[_Step], limits: Limits) -> Iterator[Chunk]:
    held: list[Document | Broken] = []
    taken, after = 0, Position(source)
    for document, after, size in steps:
        held.append(document)
        taken += size
        if taken >= limits.chunk_bytes or len(held) >= limits.chunk_documents:
            yield Chunk(source, tuple(held), after, taken)
            held, taken = [], 0
    if held:
        yield Chunk(source, tuple(held), after, taken)


def _lines(file: BinaryIO, longest: int) -> Iterator[tuple[bytes | None, int]]:
    """Each line and its bytes in the file; None for one that is longer than `longest`."""
    while line := file.readline(longest + 2):
        size = len(line)
        if size <= longest or line.endswith(b"\n"):
            yield line, size
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(longest)
            size += len(line)
        yield None, size


def _blocks(file: BinaryIO, start: Position, limits: Limits) -> Iterator[_Step]:
    """Blank lines after a document count to it, so that its end is where the next one begins."""
    held: list[bytes] = []
    first, size, kept, too_long = start.number + 1, 0, 0, False
    offset, number, ended = start.offset, start.number, False

    def finish() -> _Step:
        text = None if too_long else b"".join(held)
        return _decoded(text, first, offset - size, limits), Position(start.source, offset, number), size

    for line, length in _lines(file, limits.longest):
        blank = line is not None and not line.strip()
        if ended and not blank:
            yield finish()
            held, first, size, kept, too_long, ended = [], number + 1, 0, 0, False, False
        offset, number, size = offset + length, number + 1, size + length
        if blank:
            ended = ended or bool(held) or too_long
            first = first if ended else number + 1
            continue
        kept += length
        if line is None or kept > limits.longest:
            held, too_long = [], True
        elif not too_long:
            held.append(line)
        ended = limits.split is Split.LINES
    if held or too_long:
        yield finish()


def _decoded(data: bytes | None, line: int, offset: int, limits: Limits) -> Document | Broken:
    """`offset` is the byte at which the block begins, blank lines before it included."""
    place = f"line {line}"
    if data is None:
        return _too_long(place, limits)
    if offset == 0 and data.startswith(_BOM):
        data = data[len(_BOM) :]
    try:
        return Document(data.decode().rstrip("\r\n"), place)
    except UnicodeDecodeError as error:
        bad = line + data.count(b"\n", 0, error.start)
        column = error.start - data.rfind(b"\n", 0, error.start)
        what = f"byte 0x{data[error.start]:02x} at byte {column} of the line is not UTF-8 ({error.reason})"
        return Broken(f"line {bad}", what)


def _too_long(place: str, limits: Limits) -> Broken:
    return Broken(place, f"a document longer than {limits.longest} bytes: split it, or raise --longest")


def _json_lines(file: BinaryIO, start: Position, limits: Limits) -> Iterator[_Step]:
    offset, number, size = start.offset, start.number, 0
    # A line of JSON has escapes and other fields, so it may be longer than the text in it.
    for line, length in _lines(file, 8 * limits.longest):
        offset, number, size = offset + length, number + 1, size + length
        if line is not None and not line.strip():
            continue
        yield _parsed(line, number, limits), Position(start.source, offset, number), size
        size = 0


def _parsed(line: bytes | None, number: int, limits: Limits) -> Document | Broken:
    place = f"line {number}"
    if line is None:
        return _too_long(place, limits)
    if number == 1:
        line = line.removeprefix(_BOM)
    decoded = _decoded(line, number, -1, Limits(longest=len(line)))
    if isinstance(decoded, Broken):
        return decoded
    try:
        value = json.loads(decoded.text)
    except (ValueError, RecursionError) as error:
        return Broken(place, f"not JSON: {error}")
    if not isinstance(value, dict):
        return Broken(place, f"a JSON object is needed, this is {type(value).__name__}")
    if limits.field not in value:
        there = ", ".join(list(value)[:8]) or "none"
        return Broken(place, f"no field {limits.field!r}; there are {there}: name one with --field")
    return _checked(value[limits.field], place, limits)


def _checked(text: object, place: str, limits: Limits) -> Document | Broken:
    if not isinstance(text, str):
        return Broken(place, f"field {limits.field!r} must be a string, this is {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return Broken(place, f"character {error.start} of the text is half a surrogate pair")
    if size > limits.longest:
        return _too_long(place, limits)
    return Document(text, place)


def _rows(source: Source, start: Position, limits: Limits) -> Iterator[_Step]:
    import pyarrow  # noqa: PLC0415  60 MB of memory that only Parquet files need
    import pyarrow.parquet as pq  # noqa: PLC0415

    where = f"{source.path}"
    try:
        with pq.ParquetFile(source.path, pre_buffer=False, buffer_size=1 << 20) as file:
            kind = _column(file.schema_arrow, where, limits.field)
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise FilterError(f"{where}: column {limits.field!r} must hold strings, it holds {kind}")
            for group in range(start.offset, file.num_row_groups):
                where = f"{source.path}: row group {group}"
                skip = start.number if group == start.offset else 0
                yield from _group_rows(file, group, skip, Position(start.source), limits)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FilterError(f"{where}: cannot be read as Parquet: {error}") from error


def _column(schema: object, where: str, field: str) -> object:
    names: list[str] = schema.names  # type: ignore[attr-defined]
    if field not in names:
        raise FilterError(
            f"{where}: no column {field!r}; there are {', '.join(names)}: name one with --field"
        )
    return schema.field(field).type  # type: ignore[attr-defined]


def _group_rows(file: object, group: int, skip: int, at: Position, limits: Limits) -> Iterator[_Step]:
    rows: int = file.metadata.row_group(group).num_rows  # type: ignore[attr-defined]
    before: int = sum(file.metadata.row_group(i).num_rows for i in range(group))  # type: ignore[attr-defined]
    number = 0
    batches = file.iter_batches(  # type: ignore[attr-defined]
        batch_size=256, row_groups=[group], columns=[limits.field], use_threads=False
    )
    for batch in batches:
        if number + len(batch) <= skip:
            number += len(batch)
            continue
        for text in batch.column(0).to_pylist():
            number += 1
            if number > skip:
                after = Position(at.source, group + number // rows, number % rows)
                size = len(text.encode()) if isinstance(text, str) else 0
                yield _checked(text, f"row {before + number}", limits), after, size
