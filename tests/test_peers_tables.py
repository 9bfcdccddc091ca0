"""Verdicts, tables, JSON and chart of a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from loadtest.bench.targets import Verdict
from loadtest.errors import BenchError
from loadtest.peers import chart, report
from loadtest.peers.__main__ import main
from loadtest.peers.measure import Found
from loadtest.peers.plan import OURS, Plan, Setting
from loadtest.peers.quality import Quality
from loadtest.peers.roofline import Roofline
from loadtest.peers.verdicts import eligible, verdicts
from loadtest.peers.windows import windows
from loadtest.sample import Sample
from tests.bench_machine import MACHINE

PLAN = replace(Plan(), streams=(1, 8), repeats=2)
ROOF = Roofline(27e9, 135_000_000)
QUALITIES = {
    OURS: Quality(10.71, -0.001, None, 3072),
    "openvino": Quality(10.85, 0.0122, 0.002, 3066),
    "openvino-tuned": Quality(10.81, 0.0087, 0.002, 3066),
    "llama-q4_0": Quality(13.0, 0.2, 0.01, 3066),
    "llama-q8_0": Quality(10.73, 0.001, 0.001, 3066),
    "vllm": Quality(10.72, 0.0, 0.0, 3066),
}
RATES = {
    ("engine", 1): 150.0,
    ("engine", 8): 400.0,
    ("openvino", 8): 900.0,
    ("openvino-tuned", 8): 320.0,
    ("llama-q4_0", 8): 800.0,
    ("llama-q8_0", 8): 200.0,
    ("grpc", 8): 390.0,
    ("vllm", 8): 260.0,
    ("server-q8_0", 8): 300.0,
}


def _sample(row: str, streams: int, rate: float, repeat: int) -> Sample:
    tokens = 64 * streams
    return Sample(row, streams, repeat, tokens, tokens, tokens / rate, rate, (0.1,) * streams, 0.01, 0.02)


def _samples(rates: Mapping[tuple[str, int], float]) -> list[Sample]:
    return [
        _sample(row, streams, rate * (1 + repeat / 100), repeat)
        for (row, streams), rate in rates.items()
        for repeat in range(PLAN.repeats)
    ]


FOUND = Found(_samples(RATES), {}, {"ort-int8": "it is not installed"}, idle_cores=0.5)


def _verdict(start: str, found: Found = FOUND) -> Verdict:
    return next(one for one in verdicts(PLAN, found.samples, QUALITIES) if one.name.startswith(start))


def test_only_equal_quality_is_compared() -> None:
    alone = eligible(PLAN, Setting.PROCESS, QUALITIES)
    assert [row.name for row in alone] == ["openvino-tuned", "llama-q8_0"]
    assert eligible(PLAN, Setting.PROCESS, {}) == []


def test_the_best_peer_is_that_of_this_number_of_sequences() -> None:
    verdict = _verdict("tokens/s in process, 8")
    assert verdict.value == pytest.approx(400 / 320)
    assert verdict.note == "the best: OpenVINO GenAI int8, tuned"
    assert verdict.met is True


def test_servers_are_compared_with_servers() -> None:
    verdict = _verdict("tokens/s server, 8")
    assert verdict.value == pytest.approx(1.3)
    assert (verdict.note, verdict.target) == ("the best: llama-server Q8_0", 1.3)


def test_nothing_to_compare_with_is_no_verdict() -> None:
    verdict = _verdict("tokens/s in process, 1")
    assert (verdict.value, verdict.met) == (None, None)
    assert "no peer" in verdict.note


@pytest.mark.parametrize(("rate", "met"), [(379.0, False), (381.0, True)])
def test_through_triton_against_in_process(rate: float, met: bool) -> None:
    found = replace(FOUND, samples=_samples({**RATES, ("grpc", 8): rate}))
    assert _verdict("tokens/s, 8: through Triton", found).met is met


def test_the_tables_flag_what_is_lossy_missing_or_busy(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(PLAN, MACHINE, FOUND, QUALITIES, ROOF)
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "OpenVINO GenAI int8, tuned",
        "+1.22 ±0.20",
        "ort-int8 is missing: it is not installed",
        "took 0.50 of a core",
        "27 GB/s",
        "at 200 tokens/s",
        "llama-server Q8_0",
    ):
        assert part in shown


def test_the_json_has_everything_and_reads_again() -> None:
    content = json.loads(json.dumps(report.to_json(PLAN, MACHINE, FOUND, QUALITIES, ROOF), allow_nan=False))
    assert content["quality"]["openvino"]["comparable"] is False
    assert content["missing"] == FOUND.missing
    assert content["roofline"]["tokens_per_s"] == pytest.approx(200)
    assert len(content["samples"]) == len(FOUND.samples)
    assert {"name", "value", "met"} <= content["verdicts"][0].keys()


def test_prefill_is_until_the_last_first_token() -> None:
    assert report.prefill_rate(_sample("engine", 8, 100, 0), 128) == pytest.approx(8 * 128 / 0.1)


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    chart.draw(PLAN, FOUND, QUALITIES, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def _characters() -> Tokenizer:
    """A token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def test_windows_are_spread_over_the_text_and_encode_to_their_ids() -> None:
    tokenizer = _characters()
    found = windows(tokenizer, 6, 100)
    assert len({window.text for window in found}) == 6
    for window in found:
        assert len(window.ids) == 100
        assert tuple(tokenizer.encode(window.text).ids) == window.ids


def test_more_windows_than_there_is_text() -> None:
    with pytest.raises(BenchError, match="windows 1000000: the text has at most"):
        windows(_characters(), 1_000_000, 512)


@pytest.mark.parametrize("arguments", [["--peers", "gpt4all"], ["--streams", "0"], ["--repeats", "x"]])
def test_a_bad_command_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_more_sequences_than_slots(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--streams", "64"]) == 1
    assert "--streams 64: must be at most 32" in capsys.readouterr().err
