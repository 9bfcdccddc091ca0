"""What peers print and answer, read; which of them may be compared, and how the comparison is judged."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loadtest.bench import llama, peers
from loadtest.bench.completions import Delta, cached_tokens, counted, parse_event, prompt_losses
from loadtest.bench.measure import IDLE_CORES, settle
from loadtest.bench.peers import ENVIRONMENTS
from loadtest.bench.program import run
from loadtest.bench.quality import Quality, against, quality, require_same_text, token_losses
from loadtest.bench.sample import sample_of
from loadtest.errors import BenchError

BATCHED = {"pp": 128, "tg": 3, "pl": 2, "t_pp": 0.5, "t_tg": 0.6, "speed": 1.0}


def test_batched_bench_gives_streams_of_equal_steps() -> None:
    output = f"loading\n{json.dumps(BATCHED)}\n\n"
    streams = llama.batched_streams(output)
    assert len(streams) == 2
    assert [at for at, _ in streams[0]] == pytest.approx([0.5, 0.7, 0.9, 1.1])
    sample = sample_of("smollm2", "llama-q8_0", 1, 0, streams)
    assert sample.tokens == 8
    assert sample.wall_s == pytest.approx(1.1)
    assert sample.decode_tokens_per_s == pytest.approx(2 * 3 / 0.6)


@pytest.mark.parametrize("output", ["", "no result", '{"pl": 1}\n{"pl": 1}'])
def test_batched_bench_without_one_result_is_an_error(output: str) -> None:
    with pytest.raises(BenchError, match="expected 1"):
        llama.batched_streams(output)


def test_batched_bench_of_another_version_names_the_field() -> None:
    with pytest.raises(BenchError, match="t_tg"):
        llama.batched_streams(json.dumps({k: v for k, v in BATCHED.items() if k != "t_tg"}))


def _results(path: Path, ids: list[int], logits: NDArray[np.float32]) -> None:
    """As llama-results writes them: rows of logits, declared the other way round."""
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("tokens", np.array(ids, np.int32))
    writer.add_tensor("logits", logits.reshape(logits.shape[::-1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_logits_of_llama_results_are_scored(tmp_path: Path) -> None:
    ids, logits = [3, 0, 2], np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    _results(tmp_path / "r.gguf", ids, logits)
    assert llama.result_losses(tmp_path / "r.gguf", ids) == pytest.approx(token_losses(logits, ids))
    with pytest.raises(BenchError, match="3 other tokens"):
        llama.result_losses(tmp_path / "r.gguf", [3, 0, 1])


def test_libraries_of_a_wheel_get_their_links_once(tmp_path: Path) -> None:
    (tmp_path / "libx.so.1").write_text("library")
    (tmp_path / "_symlinks.json").write_text('{"libx.so": "libx.so.1"}')
    for _ in range(2):
        llama.link(tmp_path)
    assert (tmp_path / "libx.so").read_text() == "library"


@given(st.lists(st.lists(st.floats(-20, 20), min_size=4, max_size=4), min_size=2, max_size=6), st.data())
def test_losses_are_those_of_the_softmax(rows: list[list[float]], data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    losses = token_losses(np.array(rows), ids)
    for row, following, loss in zip(rows[:-1], ids[1:], losses, strict=True):
        share = math.exp(row[following]) / sum(map(math.exp, row))
        assert math.exp(-loss) == pytest.approx(share)


EVENT = 'data: {"choices": [{"text": " is", "token_ids": [314, 5]}], "usage": {"completion_tokens": 2}}'


def test_events_of_both_servers() -> None:
    assert parse_event(EVENT) == Delta(2, " is", {"completion_tokens": 2})
    assert parse_event('data: {"choices": [{"text": "a", "finish_reason": null}]}') == Delta(None, "a", None)
    assert parse_event('data: {"choices": [], "usage": {}}') == Delta(None, "", {})
    assert parse_event("data: [DONE]") is None
    assert parse_event(": ping") is None


def test_an_error_in_the_stream_is_an_error() -> None:
    with pytest.raises(BenchError, match="too long"):
        parse_event('data: {"error": {"message": "too long"}}')


def _chunks(*texts: str, tokens: int) -> list[tuple[float, Delta]]:
    """Texts without ids, then the usage."""
    plain = [(index / 10, Delta(None, text, None)) for index, text in enumerate(texts)]
    return [*plain, (9.0, Delta(None, "", {"completion_tokens": tokens}))]


def test_a_held_back_token_is_counted_to_the_last_chunk() -> None:
    assert counted(_chunks("a", "b", tokens=3), 3) == [(0.0, 1), (0.1, 2)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=9))
def test_reported_ids_are_counted(counts: list[int]) -> None:
    chunks = [(float(at), Delta(count, "", None)) for at, count in enumerate(counts)]
    usage = (99.0, Delta(0, "", {"completion_tokens": sum(counts)}))
    assert counted([*chunks, usage], sum(counts)) == list(enumerate(counts))


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (_chunks("a", tokens=2), "counted 2 tokens out, not 3"),
        (_chunks(tokens=3), "0 chunks"),
        (_chunks("a", "b", "c", "d", tokens=3), "had 4 tokens, not 3"),
        ([(0.0, Delta(3, "a", None))], "counted None"),
    ],
)
def test_another_number_of_tokens_is_an_error(chunks: list[tuple[float, Delta]], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        counted(chunks, 3)


def test_cached_prompt_tokens_are_seen() -> None:
    assert cached_tokens({"prompt_tokens_details": {"cached_tokens": 16}}) == 16
    assert cached_tokens({"prompt_tokens_details": None}) == 0
    assert cached_tokens({}) == 0


def test_log_probabilities_of_a_prompt() -> None:
    reported = [None, {"7": {"logprob": -0.5}}, {"4": {"logprob": -3.0}, "9": {"logprob": -1.5}}]
    assert prompt_losses({"choices": [{"prompt_logprobs": reported}]}, [1, 7, 9]) == [0.5, 1.5]


def test_quality_is_paired_with_the_reference() -> None:
    found = quality([[1.0, 2.0], [3.0, 2.0]], [[1.0, 2.0], [3.0, 1.96]])
    assert found.perplexity == pytest.approx(math.exp(2.0))
    assert found.loss == pytest.approx(math.expm1(0.01))
    assert found.error == pytest.approx(np.std([0, 0, 0, 0.04]) / 2)
    assert found.tokens == 4
    assert not found.comparable  # a little over a hundredth
    assert quality([[1.0]], [[1.0]]).comparable


@pytest.mark.parametrize("losses", [[[1.0]], [[1.0, math.nan]]])
def test_scores_that_do_not_fit_the_reference(losses: list[list[float]]) -> None:
    with pytest.raises(BenchError, match="expected 2"):
        quality(losses, [[1.0, 2.0]])


MANIFEST = {"perplexity": 10.75, "reference_perplexity": 10.7, "tokens": 3072}


def test_quality_by_perplexities_alone() -> None:
    assert against([[math.log(10.7)]], MANIFEST).loss == pytest.approx(0)
    assert against([[math.log(12)]], MANIFEST).error is None


@pytest.mark.parametrize(("perplexity", "same"), [(10.7, True), (10.72, True), (10.75, False), (16, False)])
def test_another_text_or_other_weights_are_seen(perplexity: float, same: bool) -> None:
    reference = Quality(perplexity, 0, 0, 3066)
    if same:
        require_same_text(MANIFEST, reference)
    else:
        with pytest.raises(BenchError, match=r"10\.700"):
            require_same_text(MANIFEST, reference)


def test_every_package_of_an_environment_is_pinned() -> None:
    for environment in ENVIRONMENTS.values():
        assert all("==" in package for package in environment.packages)
        assert environment.packages[0] in environment.stamp


def test_a_failing_step_ends_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)the step failed with code 3.*no such peer"):
        run("the step", ["sh", "-c", "echo no such peer; exit 3"], tmp_path / "log")


@given(st.lists(st.floats(0, 0.25), min_size=20, max_size=20))
def test_settling_ends_at_the_first_idle_look(busy: list[float]) -> None:
    waits: list[float] = []

    def cpu_s() -> float:
        return sum(busy[: len(waits)])

    cores = settle(cpu_s, waits.append)
    looks = [round(taken / 0.25, 6) for taken in busy]
    first = next((i for i, found in enumerate(looks) if found < IDLE_CORES), len(looks) - 1)
    assert len(waits) in (first + 1, first, first + 2)  # sums round
    assert cores == pytest.approx(looks[len(waits) - 1], abs=1e-6)


def test_a_peer_is_installed_and_its_models_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fake(what: str, command: Sequence[str], *_: object) -> None:
        calls.append(what)
        for part in (Path(word) for word in command if Path(word).name.startswith("part-")):
            if len(calls) == 6:  # the first conversion
                part.mkdir()
                (part / "half").touch()
                raise BenchError("interrupted")
            assert not part.exists()
            part.touch()

    monkeypatch.setattr(peers, "CACHE", tmp_path)
    monkeypatch.setattr(peers, "run", fake)
    with pytest.raises(BenchError, match="interrupted"):
        peers.prepare("onnxruntime-genai", Path("/checkpoint"), lambda _: None)
    installed = ["onnxruntime-genai: its installation"] * 2 + ["export: its installation"] * 3
    assert calls[:5] == installed
    del calls[:]
    for _ in range(2):
        peers.prepare("onnxruntime-genai", Path("/checkpoint"), lambda _: None)
    assert calls == ["converting onnxruntime-genai/int8", "converting onnxruntime-genai/int4"]
    assert peers.onnx("int4").is_file()
