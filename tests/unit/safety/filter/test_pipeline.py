from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safety.filter import pipeline
from safety.filter.errors import FilterError
from safety.filter.pipeline import sources_of
from safety.filter.read import Format, Limits
from safety.filter.settings import Settings, names
from safety.filter.write import UNFINISHED, Disk, claimed
from tests.unit.safety.filter.filtering import GUARDS, contents, filtered
from tests.unit.safety.filter.test_quality import PROSE

ALL = Settings(
    rules=tuple(name for name in names([guard.name for guard in GUARDS]) if name != "overlap"),
    limits=Limits(chunk_bytes=300),
    languages=("en",),
    part_bytes=1500,
    licence="CC0-1.0",
)
SECRET = "KEY-12345678"
ADDRESS = "someone@example.org"


def document(source: random.Random) -> str:
    words = [f"{word}{source.choice('abcd')}" for word in source.sample(PROSE.split()[:40], 14)]
    extra = source.choice(["", "", "", "", f" {ADDRESS}", f" {SECRET}", " horrible", " Wasser und Land"])
    return " ".join(words) + extra


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    """Three files of three formats; a quarter of the documents was there before."""
    source = random.Random(1)
    texts: list[str] = []
    for _ in range(48):
        again = texts and source.random() < 0.3
        texts.append(source.choice(texts) if again else document(source))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(texts[:16]))
    (folder / "b.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts[16:32]))
    pq.write_table(pa.table({"text": texts[32:]}), folder / "c.parquet", row_group_size=5)
    return [folder]


def lines(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for part in sorted(out.glob("kept-*")) for line in part.read_text().splitlines()]


def report(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "report.json").read_text())
    return content


def test_every_document_is_kept_or_removed_once(tmp_path: Path, corpus: list[Path]) -> None:
    out = tmp_path / "out"
    tally = filtered(ALL, corpus, out)
    removed = {
        name: entry["documents"] for name, entry in report(out)["removed"].items() if entry["documents"]
    }
    assert set(removed) == {"language", "email", "key", "toxicity", "exact-duplicate"}
    assert tally.documents == 48 == tally.kept + sum(removed.values())
    assert len(lines(out)) == tally.kept
    assert len({line["text"] for line in lines(out)}) == tally.kept


def test_the_output_has_texts_and_places_of_the_sources_in_their_order(
    tmp_path: Path, corpus: list[Path]
) -> None:
    out = tmp_path / "out"
    filtered(replace(ALL, rules=()), corpus, out)
    found = lines(out)
    assert len(found) == 48
    texts = (corpus[0] / "a.txt").read_text().split("\n\n")
    assert [line["text"] for line in found[:16]] == texts
    assert (found[1]["source"], found[1]["place"]) == ("in/a.txt", "line 3")
    assert (found[18]["source"], found[18]["place"]) == ("in/b.jsonl", "line 3")
    assert (found[40]["source"], found[40]["place"]) == ("in/c.parquet", "row 9")


def test_originals_are_only_read(tmp_path: Path, corpus: list[Path]) -> None:
    before = contents(corpus[0])
    filtered(ALL, corpus, tmp_path / "out")
    assert contents(corpus[0]) == before


@pytest.mark.parametrize("limits", [Limits(chunk_bytes=1), Limits(chunk_documents=5), Limits()])
def test_the_output_does_not_depend_on_the_chunks(tmp_path: Path, corpus: list[Path], limits: Limits) -> None:
    filtered(ALL, corpus, tmp_path / "one")
    filtered(replace(ALL, limits=limits), corpus, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_parts_have_bounded_size_and_are_listed(tmp_path: Path, corpus: list[Path]) -> None:
    out = tmp_path / "out"
    filtered(ALL, corpus, out)
    parts = report(out)["parts"]
    assert [part["name"] for part in parts] == sorted(path.name for path in out.glob("kept-*"))
    assert len(parts) > 1
    longest = max(len(line) for path in out.glob("kept-*") for line in path.read_bytes().splitlines())
    assert all(part["bytes"] < ALL.part_bytes + longest + 1 for part in parts)


class Failing(Disk):
    """Fails at the operation of that number; -1 counts them only."""

    def __init__(self, at: int, fault: Callable[[], BaseException]) -> None:
        self.at, self.fault, self.count = at, fault, 0

    def step(self) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            raise self.fault()

    def write(self, file: BinaryIO, data: bytes) -> None:
        if self.count == self.at:
            super().write(file, data[: len(data) // 2])
        self.step()
        super().write(file, data)

    def sync(self, file: BinaryIO) -> None:
        self.step()
        super().sync(file)

    def rename(self, old: Path, new: Path) -> None:
        if self.at % 2:
            self.step()
        super().rename(old, new)
        if not self.at % 2:
            self.step()


def killed() -> BaseException:
    return KeyboardInterrupt()


@pytest.fixture
def unbroken(tmp_path: Path, corpus: list[Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(pipeline, "CHECKPOINT", 3)
    # Thousands of steps: the disk itself is not what is tested.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    filtered(ALL, corpus, tmp_path / "unbroken")
    return contents(tmp_path / "unbroken")


def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bytes(
    tmp_path: Path, corpus: list[Path], unbroken: dict[str, bytes]
) -> None:
    counting = Failing(-1, killed)
    filtered(ALL, corpus, tmp_path / "counted", counting)
    assert counting.count > 60
    # Steps before and after the middle are alike; those at the end are not.
    steps = {*range(0, counting.count, 3), *range(counting.count - 10, counting.count)}
    for at in sorted(steps):
        out = tmp_path / f"out{at}"
        with pytest.raises(KeyboardInterrupt):
            filtered(ALL, corpus, out, Failing(at, killed))
        # What is there is whole: each part is one of the unbroken run.
        assert all(path.read_bytes() == unbroken[path.name] for path in out.glob("kept-*"))
        filtered(ALL, corpus, out)
        assert contents(out) == unbroken, at


def test_a_run_that_is_killed_again_and_again_comes_to_its_end(
    tmp_path: Path, corpus: list[Path], unbroken: dict[str, bytes]
) -> None:
    out, breaks = tmp_path / "out", 0
    while True:
        try:
            filtered(ALL, corpus, out, Failing(25, killed))
            break
        except KeyboardInterrupt:
            breaks += 1
    assert breaks > 1
    assert contents(out) == unbroken


def test_a_full_disk_is_named_and_the_run_goes_on(
    tmp_path: Path, corpus: list[Path], unbroken: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    full = Failing(50, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(FilterError, match=r"out: No space left on device: run again to go on"):
        filtered(ALL, corpus, out, full)
    filtered(ALL, corpus, out)
    assert contents(out) == unbroken


def test_a_complete_run_is_left_as_it_is(tmp_path: Path, corpus: list[Path]) -> None:
    out = tmp_path / "out"
    first = filtered(ALL, corpus, out)
    nothing = Failing(0, killed)
    again = filtered(ALL, corpus, out, nothing)
    assert (again.documents, again.kept, again.by_source) == (first.documents, first.kept, first.by_source)
    assert {rule: entry for rule, entry in again.removed.items() if entry.documents} == first.removed
    assert nothing.count == 0


def test_a_folder_of_another_run_is_refused(tmp_path: Path, corpus: list[Path]) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        filtered(ALL, corpus, out, Failing(50, killed))
    for _ in "unfinished", "complete":
        with pytest.raises(FilterError, match=r"out: holds a run with other settings"):
            filtered(replace(ALL, toxicity=0.5), corpus, out)
        filtered(ALL, corpus, out)
    (corpus[0] / "a.txt").write_text("changed")
    with pytest.raises(FilterError, match=r"out: holds a run with other sources"):
        filtered(ALL, corpus, out)


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, corpus: list[Path]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(FilterError, match=r"out: not empty"):
        filtered(ALL, corpus, out)
    assert contents(out) == {"mine": b"mine"}
    with pytest.raises(FilterError, match=r"mine: a file: name a folder"):
        filtered(ALL, corpus, out / "mine")


@pytest.mark.parametrize("content", ["{}", "[]", "none"])
def test_a_report_of_something_else_is_refused(tmp_path: Path, corpus: list[Path], content: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text(content)
    with pytest.raises(FilterError, match=r"report\.json: no report of this filter"):
        filtered(ALL, corpus, out)


def test_two_runs_do_not_share_a_folder(tmp_path: Path, corpus: list[Path]) -> None:
    with claimed(tmp_path / "out"), pytest.raises(FilterError, match="another run writes there"):
        filtered(ALL, corpus, tmp_path / "out")


@pytest.mark.parametrize("harm", ["state.json", "index", "kept-00000.jsonl"])
def test_a_state_that_was_harmed_is_named(
    tmp_path: Path, corpus: list[Path], unbroken: dict[str, bytes], harm: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        filtered(ALL, corpus, out, Failing(50, killed))
    path = out / harm if harm.startswith("kept") else out / UNFINISHED / harm
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(FilterError, match=harm):
        filtered(ALL, corpus, out)


def test_a_broken_document_stops_the_run_or_is_counted(tmp_path: Path) -> None:
    path, out = tmp_path / "lines.jsonl", tmp_path / "out"
    path.write_text(f'{{"text": "{PROSE}"}}\n{{"txt": "{ADDRESS}"}}\n{{"text": "{PROSE} And more."}}\n')
    settings = replace(ALL, rules=("exact-duplicate",))
    with pytest.raises(FilterError, match=r"lines\.jsonl: line 2: no field 'text'"):
        filtered(settings, [path], out)
    tally = filtered(replace(settings, skip_broken=True), [path], tmp_path / "other")
    assert (tally.documents, tally.kept) == (3, 2)
    assert report(tmp_path / "other")["removed"]["broken"]["samples"][0]["place"] == "line 2"


def test_findings_are_masked_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(f"{PROSE} {ADDRESS}, {ADDRESS}\n\n{PROSE.upper()} {SECRET} {ADDRESS}\n")
    tally = filtered(replace(ALL, mask_personal=True), [path], tmp_path / "out")
    assert [line["text"] for line in lines(tmp_path / "out")] == [f"{PROSE} <email>, <email>"]
    assert tally.masked == {"email": 2}


def test_texts_that_are_equal_once_masked_are_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(f"{PROSE} a@b.org\n\n{PROSE} c@d.org\n")
    tally = filtered(replace(ALL, mask_personal=True), [path], tmp_path / "out")
    assert tally.removed["exact-duplicate"].documents == 1
    assert tally.masked == {"email": 1}


def test_reports_show_nothing_that_a_rule_finds(tmp_path: Path) -> None:
    """Whatever removes the documents, rules that are off included, and where a sample is cut."""
    path = tmp_path / "text"
    found = [f"{'x ' * i}{SECRET} {ADDRESS} und " for i in range(85, 105)]
    path.write_text("\n\n".join([f"few {SECRET}", f"{PROSE} {SECRET} {ADDRESS}", *found]))
    for number, rules in enumerate([ALL.rules, ("short",), ("language",), ("key",), ("near-duplicate",)]):
        out = tmp_path / f"out{number}"
        filtered(replace(ALL, rules=rules, mask_personal=bool(number % 2)), [path], out)
        for name in ("report.json", "report.md", "datacard.md"):
            text = (out / name).read_text()
            assert "KEY-" not in text
            assert "someone" not in text
        assert "&lt;key>" in (out / "report.md").read_text() or "<key>" in (out / "report.md").read_text()


def test_the_data_card_names_sources_rules_versions_and_the_licence(
    tmp_path: Path, corpus: list[Path]
) -> None:
    filtered(ALL, corpus, tmp_path / "out")
    card = (tmp_path / "out" / "datacard.md").read_text()
    for source in report(tmp_path / "out")["run"]["sources"]:
        assert f"| {source['name']} | {source['bytes']} |" in card
        assert source["sha256"] in card
    for words in ("- Licence: CC0-1.0", "| rensa | 0.5.0 |", "| minimum_words | 10 |", "near-duplicate"):
        assert words in card


def test_sources_are_files_and_folders_by_name(tmp_path: Path) -> None:
    for name in ("b/z.txt", "b/a.JSONL", "b/.hidden", "b/.git/config", "c.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = sources_of([tmp_path / "c.parquet", tmp_path / "b"], tmp_path / "out", Format.AUTO)
    assert [(source.name, source.format) for source in found] == [
        ("c.parquet", Format.PARQUET), ("b/a.JSONL", Format.JSONL), ("b/z.txt", Format.TEXT),
    ]  # fmt: skip


def test_inputs_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder / "a.txt")

    def refused(message: str, *paths: Path, out: Path = tmp_path / "out") -> None:
        with pytest.raises(FilterError, match=message):
            sources_of(paths, out, Format.AUTO)

    refused("in: no file to read", folder)
    (folder / "a.txt").touch()
    (folder / "sub" / "a.txt").touch()
    refused("missing: there is no such file", tmp_path / "missing")
    refused("lies inside", folder, out=folder / "out")
    refused("lies inside", folder, out=folder)
    refused("the same file as", folder / "a.txt", folder)
    refused("the same file as", folder / "a.txt", tmp_path / "link")
    refused("is a.txt too", folder / "a.txt", folder / "sub" / "a.txt")
