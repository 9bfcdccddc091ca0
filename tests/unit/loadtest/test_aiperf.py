"""What aiperf is given, how its report and ours are read, and the figures of both."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from loadtest import aiperf
from loadtest.aiperf import Timing, figures_of
from loadtest.errors import BenchError
from loadtest.traffic.profile import Profile, load_profile, profile_of
from loadtest.traffic.prompts import PromptWriter, plain_words
from loadtest.traffic.schedule import schedule

TIMINGS = st.lists(
    st.builds(
        lambda sent_s, ttft_s, decode_s, tokens: Timing(sent_s, ttft_s, sent_s + ttft_s + decode_s, tokens),
        st.floats(0, 100),
        st.floats(0.01, 10),
        st.floats(0.01, 50),
        st.integers(2, 500),
    ),
    min_size=1,
    max_size=20,
)


def _profile() -> Profile:
    sizes = ["--duration", "3", "--tokens-in", "16", "--tokens-out", "4"]
    options = aiperf.parser().parse_args(["--out", "x", "--rate", "20", *sizes])
    return profile_of(tomllib.loads(aiperf.profile_text(options)))


def record(phase: str = "profiling", **changed: Any) -> dict[str, Any]:
    """As aiperf 0.13 writes it to profile_export.jsonl, what is not read left out."""
    return {
        "metadata": {
            "request_start_ns": 1_795_476_447_197_198_834,
            "request_end_ns": 1_795_476_452_613_790_423,
            "benchmark_phase": phase,
            "was_cancelled": False,
        },
        "metrics": {
            "time_to_first_token": {"value": 2620.927124, "unit": "ms"},
            "request_latency": {"value": 5416.591589, "unit": "ms"},
            "output_sequence_length": {"value": 64, "unit": "tokens"},
            "inter_token_latency": {"value": 44.37562642857142, "unit": "ms"},
        },
    } | changed


def test_timings_of_a_record() -> None:
    (timing,) = aiperf.timings_of([json.dumps(record())])
    assert timing.tokens == 64
    assert timing.ttft_s == pytest.approx(2.620927124)
    assert timing.e2e_s == pytest.approx(5.416591589)


def test_our_inter_token_latency_of_a_record_is_aiperfs_own() -> None:
    (timing,) = aiperf.timings_of([json.dumps(record())])
    assert timing.itl_s * 1000 == pytest.approx(44.37562642857142)


def test_its_warm_up_does_not_count() -> None:
    lines = [json.dumps(record("warmup", error={"code": 500})), json.dumps(record())]
    assert len(aiperf.timings_of(lines)) == 1


def test_a_failed_request_is_an_error() -> None:
    lines = [json.dumps(record()), json.dumps(record(error={"code": 503, "message": "queue is full"}))]
    with pytest.raises(BenchError, match=r"1 of 2 requests failed: .*queue is full"):
        aiperf.timings_of(lines)


def test_aiperf_is_given_our_schedule() -> None:
    profile, writer = _profile(), PromptWriter(salt=7)
    rows = list(aiperf.rows(profile, writer))
    planned = [planned for planned, _ in zip(schedule(profile), rows, strict=False)]
    assert [row["text"] for row in rows] == [writer.write(one) for one in planned]
    assert {row["output_length"] for row in rows} == {4}
    times = [row["timestamp"] / 1000 for row in rows]
    assert len(times) > 30
    assert times == pytest.approx([one.at_s for one in planned])


def test_no_two_prompts_of_a_run_are_the_same() -> None:
    texts = [row["text"] for row in aiperf.rows(_profile(), PromptWriter(salt=7))]
    assert len(set(texts)) == len(texts) > 30


def test_aiperf_keeps_out_of_the_users_home() -> None:
    found = aiperf.environment({"HF_HUB_OFFLINE": "1", "HOME": "/root", "PATH": "/bin"}, Path("/cache"))
    assert found == {"HOME": "/cache", "PATH": "/bin"}


def test_figures_by_hand() -> None:
    timings = [Timing(10.0, 0.2, 11.0, 5), Timing(10.5, 0.4, 12.9, 11), Timing(11.0, 0.3, 12.3, 3)]
    found = figures_of("aiperf", timings)
    assert found.ttft_p50_s == 0.3
    assert found.e2e_p50_s == pytest.approx(1.3)
    assert found.itl_mean_s == pytest.approx((0.8 / 4 + 2.0 / 10 + 1.0 / 2) / 3)
    assert found.tokens_per_s == pytest.approx(19 / 2.9)


@given(TIMINGS, st.floats(0.1, 10))
def test_a_slower_clock_scales_every_figure(timings: list[Timing], factor: float) -> None:
    slower = [Timing(t.sent_s * factor, t.ttft_s * factor, t.end_s * factor, t.tokens) for t in timings]
    one, other = figures_of("x", timings), figures_of("x", slower)
    scales = [factor, factor, factor, 1 / factor]
    assert astuple(other) == pytest.approx([a * k for a, k in zip(astuple(one), scales, strict=True)])


@given(TIMINGS)
def test_figures_do_not_depend_on_the_order_of_requests(timings: list[Timing]) -> None:
    assert astuple(figures_of("x", timings)) == pytest.approx(astuple(figures_of("x", timings[::-1])))


def test_a_run_without_answers_is_refused() -> None:
    with pytest.raises(BenchError, match="aiperf: no request was answered"):
        figures_of("aiperf", [])


def test_answers_of_one_token_are_refused() -> None:
    with pytest.raises(BenchError, match="1 answers of less than 2 tokens"):
        figures_of("aiperf", [Timing(0, 1, 2, 5), Timing(0, 1, 2, 1)])


def _record(**changed: Any) -> str:
    """A line of records.jsonl, as loadtest.load writes it."""
    return json.dumps(
        {
            "request": 1,
            "kind": "aiperf",
            "protocol": "http",
            "model": "smollm2",
            "intended_s": 1.0,
            "sent_s": 1.1,
            "first_s": 1.5,
            "end_s": 2.5,
            "tokens_in": 16,
            "tokens_out": 5,
            "chunks": [[1.5, 1], [2.5, 4]],
            "finish_reason": "length",
            "error": None,
            "expected": True,
            "phase": "measure",
        }
        | changed
    )


def test_two_reports_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / aiperf.RECORDS).write_text(json.dumps(record()))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "records.jsonl").write_text(f"{_record()}\n{_record(phase='warmup', first_s=9)}\n")
    assert aiperf.main(["--out", str(tmp_path), "--compare", str(tmp_path / "ours")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:2] == ["aiperf", "2620.9"]
    assert rows[2] == ["loadtest.load", "500.0", "250.0", "1500.0", "3.3"]


def test_a_failed_request_of_ours_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / aiperf.RECORDS).write_text(json.dumps(record()))
    failed = _record(first_s=None, chunks=[], finish_reason=None, error="UNAVAILABLE", expected=False)
    (tmp_path / "records.jsonl").write_text(failed)
    assert aiperf.main(["--out", str(tmp_path), "--compare", str(tmp_path)]) == 1
    assert "1 of 1 requests failed: UNAVAILABLE" in capsys.readouterr().err


FAKE = """#!{python}
import json, os, sys
words = sys.argv[1:]
folder = words[words.index("--artifact-dir") + 1]
prompts = open(words[words.index("--input-file") + 1]).read().splitlines()
assert words[0] == "profile" and "--fixed-schedule" in words and os.environ["HOME"] == folder
with open(folder + "/profile_export.jsonl", "w") as lines:
    lines.writelines({record!r} + "\\n" for _ in prompts)
"""


def test_the_program_gets_the_profile_and_its_report_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(plain_words()))}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "words.json"))
    fake = tmp_path / "fake"
    fake.write_text(FAKE.format(python=sys.executable, record=json.dumps(record())))
    fake.chmod(0o755)
    files = ["--tokenizer", str(tmp_path / "words.json"), "--out", str(tmp_path / "out")]
    assert aiperf.main(["--program", str(fake), "--rate", "2", *files]) == 0
    assert "2620.9" in capsys.readouterr().out
    assert load_profile(tmp_path / "out" / "profile.toml").duration_s == 20


def test_without_the_program_or_a_report_the_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aiperf.main(["--out", str(tmp_path / "none")]) == 1
    assert "none/profile_export.jsonl: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "nan"], ["--duration", "-1"]])
def test_a_wrong_argument_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        aiperf.main(["--out", "runs/x", *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0]}: {arguments[1]}, must be" in capsys.readouterr().err
