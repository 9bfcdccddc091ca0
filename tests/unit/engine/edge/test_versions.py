"""Two versions of an engine on disk, and the steps that run on while one takes the place of the other."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.contract import TokenizerSettings
from engine.core.errors import ArtifactError, InvalidArgument, Unavailable
from engine.core.request import Request, Sampling
from engine.core.stops import Piece
from engine.core.tokens import TokenTable, load_table
from engine.edge.artifact import Manifest, Versions, read_manifest, request_key, table_key
from engine.edge.chunks import Chunk, decode_chunk, read_table
from engine.prompts.reader import Reader, Reading, pick, write
from tests.models.artifact import byte_tokenizer, write_artifact

LIMITS = TokenizerSettings()


class Faults:
    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, fault: BaseException) -> None:
        self.told.append(str(fault))


def tables(folder: Path, faults: Faults | None = None) -> Versions[TokenTable]:
    return Versions(folder, table_key, lambda m: load_table(m.path("tokens.bin")), faults or Faults())


def readers(folder: Path) -> Versions[Reader]:
    return Versions(folder, request_key, lambda manifest: Reader(manifest, LIMITS), Faults())


def key_of(folder: Path) -> str:
    return table_key(read_manifest(folder))


def settle(folder: Path) -> None:
    """As if its last change were long ago."""
    past = time.time() - 3600
    os.utime(folder, (past, past))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """NAME_engine with one version."""
    write_artifact(tmp_path / "toy_engine" / "1")
    return tmp_path / "toy_engine"


def test_a_version_with_generation_defaults_that_no_request_could_have_does_not_load(tmp_path: Path) -> None:
    """Ready, it would refuse every request for a value that nobody sent."""
    generation = {"eos_token_ids": [2], "top_k": -1}
    folder = write_artifact(tmp_path / "toy_engine" / "1", generation=generation)
    with pytest.raises(ArtifactError, match=r"generation: .*top_k: -1, must .*build it again"):
        Reader(read_manifest(folder), LIMITS)


class TestVersions:
    def test_a_version_is_found_as_soon_as_it_is_published(self, folder: Path) -> None:
        versions = tables(folder)
        settle(folder)
        versions.all()
        write_artifact(folder / ".building-2", byte_tokenizer(backwards=True))
        assert len(versions.all()) == 1
        (folder / ".building-2").rename(folder / "2")
        first, second = key_of(folder / "1"), key_of(folder / "2")
        assert list(versions.all()) == [second, first]
        assert versions.find(second)[0] != versions.find(first)[0]

    def test_an_opened_version_stays_when_its_folder_is_gone_which_is_reported_once(
        self, folder: Path
    ) -> None:
        """A volume that is not mounted any more, and is again, with a newer version."""
        faults, key = Faults(), key_of(folder / "1")
        versions = tables(folder, faults)
        folder.rename(folder.with_name("elsewhere"))
        for _ in range(3):
            assert list(versions.all()) == [key]
        with pytest.raises(KeyError):
            versions.find("another")
        assert len(faults.told) == 1
        assert "toy_engine" in faults.told[0]
        write_artifact(folder / "2", byte_tokenizer(backwards=True))
        assert list(versions.all()) == [key_of(folder / "2"), key]

    def test_an_opened_version_stays_when_the_folder_is_empty(self, folder: Path) -> None:
        """What is left where a volume was mounted."""
        versions, key = tables(folder), key_of(folder / "1")
        shutil.rmtree(folder / "1")
        assert list(versions.all()) == [key]

    def test_equal_versions_are_opened_once(self, folder: Path) -> None:
        opened: list[Manifest] = []
        shutil.copytree(folder / "1", folder / "2")
        versions = Versions(folder, table_key, opened.append, Faults())
        shutil.copytree(folder / "1", folder / "10")
        assert len(versions.all()) == 1
        assert [manifest.folder.name for manifest in opened] == ["2"]

    def test_the_newest_is_the_one_of_the_largest_number(self, folder: Path) -> None:
        for name, task in (("2", "complete"), ("10", "summarize"), ("9", "translate")):
            write_artifact(folder / name, task=task)
        versions = Versions(folder, request_key, lambda manifest: manifest.task, Faults())
        assert list(versions.all().values()) == ["summarize", "translate", "complete", "chat"]

    def test_an_opened_version_stays_when_its_folder_is_replaced(self, folder: Path) -> None:
        versions, key = tables(folder), key_of(folder / "1")
        shutil.rmtree(folder / "1")
        write_artifact(folder / "1", byte_tokenizer(backwards=True))
        assert list(versions.all()) == [key_of(folder / "1"), key]
        assert versions.find(key) is not versions.find(key_of(folder / "1"))

    def test_a_broken_version_is_reported_and_left_out(self, folder: Path) -> None:
        faults = Faults()
        versions = tables(folder, faults)
        write_artifact(folder / "2", manifest_version=1)
        assert list(versions.all()) == [key_of(folder / "1")]
        assert faults.told == [
            "INTERNAL: manifest: version 1, this server reads version 2; build the model again"
        ]

    def test_a_placeholder_is_no_version(self, folder: Path) -> None:
        (folder / "2").mkdir()
        assert len(tables(folder).all()) == 1

    @pytest.mark.parametrize("version", [None, "1", "broken"])
    def test_without_any_there_is_no_step(self, tmp_path: Path, version: str | None) -> None:
        if version == "broken":
            write_artifact(tmp_path / "1", manifest_version=1)
        elif version:
            (tmp_path / version).mkdir()
        with pytest.raises(ArtifactError, match=r"no version in|cannot read manifest\.json|version 1"):
            tables(tmp_path)

    def test_an_unknown_key_is_a_key_error(self, folder: Path) -> None:
        with pytest.raises(KeyError):
            tables(folder).find("0123")

    def test_an_unchanged_folder_is_not_read_again(self, folder: Path) -> None:
        versions = tables(folder)
        settle(folder)
        versions.all()
        shutil.rmtree(folder / "1")
        settle(folder)  # so that it looks as it did
        assert len(versions.all()) == 1


class TestKeys:
    @pytest.mark.parametrize(
        "changes",
        [
            {"task": "complete"},
            {"prefix": "summarize: "},
            {"generation": {"eos_token_ids": [257], "temperature": 0.5}},
            {"tokenizer": {"bos_token": "<s>", "eos_token": "<|im_end|>"}},
            {"tokenizer": {"special_tokens": {"eos_token": "<|im_end|>", "pad_token": "<pad>"}}},
        ],
    )
    def test_what_changes_a_request_changes_its_key(self, folder: Path, changes: dict[str, Any]) -> None:
        other = read_manifest(write_artifact(folder / "2", **changes))
        one = read_manifest(folder / "1")
        assert request_key(one) != request_key(other)
        assert table_key(one) == table_key(other)

    def test_other_weights_do_not(self, folder: Path) -> None:
        other = write_artifact(folder / "2", precision="int4", quality={"perplexity": 12.0}, size_bytes=1)
        assert request_key(read_manifest(other)) == request_key(read_manifest(folder / "1"))

    def test_another_tokenizer_changes_both(self, folder: Path) -> None:
        other = read_manifest(write_artifact(folder / "2", byte_tokenizer(backwards=True)))
        one = read_manifest(folder / "1")
        assert request_key(one) != request_key(other)
        assert table_key(one) != table_key(other)


class TestReadings:
    def test_each_engine_gets_its_own_reading(self, folder: Path) -> None:
        write_artifact(folder / "2", byte_tokenizer(backwards=True))
        readings = {k: r.try_read({"text_input": b"Hi"}, {}, 5) for k, r in readers(folder).all().items()}
        ids, text = write(readings)
        picked = [pick(text, ids, request_key(read_manifest(folder / name))) for name in ("1", "2")]
        for request, backwards in zip(picked, (False, True), strict=True):
            assert list(request.prompt) == byte_tokenizer(backwards).encode("Hi").ids
            assert (request.arrival_ns, request.ensemble) == (5, True)

    def test_a_refusal_of_one_version_is_not_the_others(self, folder: Path) -> None:
        """A new version may be published long before it is loaded."""
        write_artifact(folder / "2", task="complete")
        inputs = {"messages": b'[{"role": "user", "content": "Hi"}]'}
        ids, text = write({k: r.try_read(inputs, {}, 5) for k, r in readers(folder).all().items()})
        assert pick(text, ids, request_key(read_manifest(folder / "1"))).prompt
        with pytest.raises(InvalidArgument, match="this model's task is complete, use text_input"):
            pick(text, ids, request_key(read_manifest(folder / "2")))

    def test_what_all_refuse_is_refused_as_the_newest_does(self, folder: Path) -> None:
        write_artifact(folder / "2", task="complete")
        read = [reader.try_read({"messages": b"[]"}, {}, 5) for reader in readers(folder).all().values()]
        with pytest.raises(InvalidArgument) as caught:
            write(dict(zip("ab", read, strict=True)))
        assert caught.value is read[0]

    def test_an_engine_that_nothing_was_written_for_says_so(self) -> None:
        ids, text = write({"a": Request((1, 2), Sampling(3))})
        with pytest.raises(
            Unavailable, match="model: its files were replaced by those of another model: reload"
        ):
            pick(text, ids, "b")

    @pytest.mark.parametrize(
        "text", ["[1]", "[[]]", "3", "null", '[{"for": "a", "request": 5}]', "[" * 10**5]
    )
    def test_a_text_that_no_step_wrote_is_refused(self, text: str) -> None:
        with pytest.raises((InvalidArgument, Unavailable)):
            pick(text, [1], "a")

    def test_a_request_without_a_tokenizer_step_is_one_object(self) -> None:
        request = Request((1, 2), Sampling(3))
        assert pick(request.to_json(), [1, 2], "any") == request

    @given(
        st.dictionaries(
            st.text("abcdef0123456789", min_size=1),
            st.lists(st.integers(0, 2**31 - 1), min_size=1),
            min_size=1,
        )
    )
    def test_readings_come_back_as_they_were(self, prompts: dict[str, list[int]]) -> None:
        readings: dict[str, Reading] = {
            k: Request(tuple(ids), Sampling(3), arrival_ns=len(ids)) for k, ids in prompts.items()
        }
        ids, text = write(readings)
        assert {key: pick(text, ids, key) for key in readings} == readings
        assert json.loads(text)[0].keys() == {"for", "request"}


def test_a_chunk_is_decoded_with_the_table_that_it_was_made_with(folder: Path) -> None:
    """A stream of the old version goes on while the new one serves."""
    versions = tables(folder)
    write_artifact(folder / "2", byte_tokenizer(backwards=True))
    for name, backwards in (("1", False), ("2", True), ("1", False)):
        ids = byte_tokenizer(backwards).encode("Hi").ids
        chunk = Chunk("handle", Piece(0, tuple(ids), 0, 0, 2), 1, 2).to_json(key_of(folder / name)).encode()
        assert decode_chunk(chunk, versions.find(read_table(chunk))).answer.text == "Hi"
