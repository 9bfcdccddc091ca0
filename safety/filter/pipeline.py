"""A run from its sources to its folder: reading, workers, index, output, and going on after a break.

Workers judge chunks, this process puts their verdicts in order. So the output depends neither on the number
of workers nor on the size of the chunks.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from json import dumps, loads
from pathlib import Path
from typing import Any, cast

import numpy as np

from safety.filter import duplicates, quality, report
from safety.filter.duplicates import Index
from safety.filter.errors import FilterError
from safety.filter.judge import Judge, Judged
from safety.filter.read import Broken, Chunk, Document, Format, Position, Source, chunks, size_of
from safety.filter.report import Sample, Tally
from safety.filter.settings import BROKEN, EXACT, NEAR, Settings
from safety.filter.write import (
    UNFINISHED,
    Disk,
    Part,
    Parts,
    Rows,
    claimed,
    clear,
    load_state,
    occupied,
    save_state,
    sha256_of,
)

# Chunks between two states: what is repeated after a break.
CHECKPOINT = 16
_PACKAGES = ("eldc", "numpy", "phonenumbers", "pyarrow", "regex", "rensa")

# Judges chunks in their order.
Judging = Callable[[Iterator[Chunk]], Iterator[tuple[Chunk, Judged]]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the sources' bytes so many are done; documents read and kept, those before a break as well."""

    done: int
    total: int
    documents: int
    kept: int


def describe(settings: Settings, sources: Sequence[Source]) -> dict[str, Any]:
    """All that decides the output, with the SHA-256 of every file that is read: in the form of JSON."""
    # A run that goes on may cut its chunks in another way.
    asked = asdict(settings)
    del asked["limits"]["chunk_bytes"], asked["limits"]["chunk_documents"]
    content = {
        "settings": asked,
        "sources": [
            {"name": source.name, "bytes": source.path.stat().st_size, "sha256": sha256_of(source.path)}
            for source in sources
        ],
        "rule_files": {path: sha256_of(Path(path)) for path in settings.rule_files},
        "evaluation": {path: sha256_of(Path(path)) for path in settings.evaluation},
        "parameters": _parameters(settings),
        "versions": {
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{name: version(name) for name in _PACKAGES},
        },
    }
    return cast("dict[str, Any]", loads(dumps(content)))


def _parameters(settings: Settings) -> dict[str, object]:
    return {
        "minimum_words": settings.form.minimum_words,
        "maximum_words": settings.form.maximum_words,
        "word_length": quality.WORD_LENGTH,
        "symbols": quality.SYMBOLS,
        "letters": quality.LETTERS,
        "bullets": quality.BULLETS,
        "ellipses": quality.ELLIPSES,
        "boilerplate_lines": quality.BOILERPLATE_LINES,
        "repetition_words": quality.REPETITION_WORDS,
        "repeated_lines": quality.REPEATED_LINES,
        "repeated_line_characters": quality.REPEATED_LINE_CHARACTERS,
        "top_grams": quality.TOP_GRAMS,
        "repeated_grams": quality.REPEATED_GRAMS,
        "languages": settings.languages,
        "toxicity": settings.toxicity,
        "personal": "mask" if settings.mask_personal else "remove",
        "overlap_words": settings.overlap_words,
        "shingle_words": duplicates.SHINGLE,
        "near_bands": duplicates.BANDS,
        "near_rows": duplicates.ROWS,
        "near_seed": duplicates.SEED,
    }


def run(
    settings: Settings,
    sources: Sequence[Source],
    out: Path,
    judge: Judge,
    judging: Judging,
    show: Callable[[Progress], None] = lambda _: None,
    disk: Disk | None = None,
) -> Tally:
    """Filters the sources into the folder `out`, or goes on with that. A run that is complete is left.

    FilterError when `out` holds something else, or names what cannot be read or written: then the same
    call goes on once the cause is gone.
    """
    described = describe(settings, sources)
    if occupied(out):
        return _complete(out, described)
    with claimed(out), ExitStack() as stack:
        state = load_state(out)
        if state is None and (out / "report.json").exists():
            tally = _complete(out, described)
            clear(out)
            return tally
        writing = _Run(settings, sources, out, judge, disk or Disk(), described)
        stack.callback(writing.close)
        writing.begin(state)
        writing.through(judging, show)
        return writing.tally


def _complete(out: Path, described: dict[str, Any]) -> Tally:
    path = out / "report.json"
    if not path.exists():
        raise FilterError(f"{out}: not empty, and no run of this filter: name another folder")
    try:
        content = loads(path.read_bytes())
        _same(out, content["run"], described)
    except (ValueError, TypeError, KeyError) as error:
        raise FilterError(f"{path}: no report of this filter: name another folder") from error
    by_source = {name: [entry["documents"], entry["kept"]] for name, entry in content["by_source"].items()}
    names = ("documents", "bytes", "kept", "kept_bytes", "removed", "masked")
    return Tally.of({**{name: content[name] for name in names}, "by_source": by_source})


def _same(out: Path, there: dict[str, Any], asked: dict[str, Any]) -> None:
    different = [key for key in asked if there.get(key) != asked[key]]
    if different:
        raise FilterError(
            f"{out}: holds a run with other {', '.join(different)}: repeat that one, or name another folder"
        )


class _Run:
    """The folder of a run, its index and its counts."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[Source],
        out: Path,
        judge: Judge,
        disk: Disk,
        described: dict[str, Any],
    ) -> None:
        self._settings, self._sources, self._out = settings, sources, out
        self._judge, self._disk, self._described = judge, disk, described
        self._parts, self._rows = Parts(out, settings.part_bytes, disk), Rows(out, duplicates.BYTES, disk)
        self._indexed = EXACT in settings.rules or NEAR in settings.rules
        self._index = Index(EXACT in settings.rules, NEAR in settings.rules)
        self._position, self._done = Position(), 0
        self.tally = Tally()

    def begin(self, state: dict[str, Any] | None) -> None:
        if state is None:
            self._parts.resume([], 0, 0)
            self._save()
            return
        _same(self._out, state["run"], self._described)
        self._parts.resume([Part(**part) for part in state["parts"]], state["size"], state["in_part"])
        for block in self._rows.resume(state["rows"]):
            self._index.load(np.frombuffer(block, np.uint64).reshape(-1, duplicates.BYTES // 8))
        self._position, self._done = Position(*state["position"]), state["done"]
        self.tally = Tally.of(state["tally"])

    def through(self, judging: Judging, show: Callable[[Progress], None]) -> None:
        total = sum(size_of(source, self._settings.limits) for source in self._sources)
        pending = 0
        for chunk, judged in judging(chunks(self._sources, self._position, self._settings.limits)):
            self._take(chunk, judged)
            pending += 1
            if pending == CHECKPOINT:
                self._save()
                pending = 0
            show(Progress(min(self._done, total), total, self.tally.documents, self.tally.kept))
        self._finish()

    def _take(self, chunk: Chunk, judged: Judged) -> None:
        source = self._sources[chunk.source]
        answers: list[str | None] = [None] * len(judged.kept)
        if self._indexed:
            answers = self._index.admit(judged.keys)
            fresh = [answer is None for answer in answers]
            self._rows.write(judged.keys[fresh].tobytes())
        known = dict(zip(judged.kept, answers, strict=True))
        for i, document in enumerate(chunk.documents):
            rule = judged.removed.get(i) or known.get(i)
            if isinstance(document, Broken):
                self._take_broken(source, document, judged.samples.get(i))
            elif rule is None:
                self._keep(source, document, judged.changed.get(i, document.text))
                self.tally.mask(judged.masked.get(i, {}))
            else:
                self._remove(source, document, rule, judged.samples.get(i))
        self._position, self._done = chunk.after, self._done + chunk.taken

    def _take_broken(self, source: Source, document: Broken, sample: str | None) -> None:
        if not self._settings.skip_broken:
            raise FilterError(
                f"{source.path}: {document.place}: {document.reason}; --broken remove leaves these out"
            )
        self.tally.read(source.name, 0)
        if self.tally.remove(BROKEN, 0):
            self.tally.removed[BROKEN].samples.append(Sample(source.name, document.place, sample or ""))

    def _keep(self, source: Source, document: Document, text: str) -> None:
        size = len(document.text.encode())
        self.tally.read(source.name, size)
        self.tally.keep(source.name, size)
        record = {"text": text, "source": source.name, "place": document.place}
        self._parts.write(dumps(record, ensure_ascii=False).encode() + b"\n")

    def _remove(self, source: Source, document: Document, rule: str, sample: str | None) -> None:
        size = len(document.text.encode())
        self.tally.read(source.name, size)
        if self.tally.remove(rule, size):
            text = self._judge.sample(document.text) if sample is None else sample
            self.tally.removed[rule].samples.append(Sample(source.name, document.place, text))

    def _save(self) -> None:
        self._parts.sync()
        self._rows.sync()
        at = self._position
        state = {
            "run": self._described,
            "position": [at.source, at.offset, at.number],
            "done": self._done,
            "parts": [asdict(part) for part in self._parts.done],
            "size": self._parts.size,
            "in_part": self._parts.documents,
            "rows": self._rows.size,
            "tally": asdict(self.tally),
        }
        save_state(self._out, state, self._disk)

    def _finish(self) -> None:
        self._parts.finish()
        unfinished = self._out / UNFINISHED
        parts = self._parts.done
        files = {
            "report.md": report.as_markdown(self._described, self.tally),
            "datacard.md": report.as_data_card(self._described, self.tally, parts),
            # Last: it is the sign of a run that is complete.
            "report.json": report.as_json(self._described, self.tally, parts),
        }
        for name, content in files.items():
            self._disk.save(self._out / name, content, unfinished)
        self.close()
        clear(self._out)

    def close(self) -> None:
        self._parts.close()
        self._rows.close()


def sources_of(paths: Sequence[Path], out: Path, form: Format) -> list[Source]:
    """The files to read: those that are named, and all in folders that are named, by name. Hidden ones are
    left. FilterError when a path is missing, a file is named twice, or `out` lies inside a folder.
    """
    found: list[Source] = []
    for path in paths:
        if not path.exists():
            raise FilterError(f"{path}: there is no such file or folder")
        if path.is_dir():
            if out.resolve().is_relative_to(path.resolve()):
                raise FilterError(f"{out}: lies inside {path}, which is read: name a folder elsewhere")
            found += [
                Source(file, f"{path.name}/{file.relative_to(path)}", _format(file, form))
                for file in sorted(path.rglob("*"))
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
        else:
            found.append(Source(path, path.name, _format(path, form)))
    if not found:
        raise FilterError(f"{', '.join(map(str, paths))}: no file to read")
    _once(found)
    return found


def _format(path: Path, form: Format) -> Format:
    if form is not Format.AUTO:
        return form
    by_name = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".parquet": Format.PARQUET}
    return by_name.get(path.suffix.lower(), Format.TEXT)


def _once(sources: Sequence[Source]) -> None:
    """Two files may have one name: the report then could not tell them apart."""
    files: dict[tuple[int, int], Source] = {}
    names: dict[str, Source] = {}
    for source in sources:
        stat = source.path.stat()
        other = files.setdefault((stat.st_dev, stat.st_ino), source)
        if other is not source:
            raise FilterError(f"{source.path}: the same file as {other.path}: name it once")
        other = names.setdefault(source.name, source)
        if other is not source:
            raise FilterError(
                f"{source.path}: {other.path} is {source.name} too: name the folder above, or rename one"
            )
