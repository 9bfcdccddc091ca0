"""The bench's own parts: its guard, its programs, its look at memory, its repositories."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from inprocess import Call, shared_steps
from loadtest import artifacts
from loadtest.bench import __main__ as bench
from loadtest.bench.program import Program
from loadtest.errors import BenchError
from loadtest.memory import Memory, memory_of_tree, tree
from loadtest.streams import require_loopback

ECHO = """
import sys
from loadtest.bench.program import serve
def answer(command):
    if command.get("fail"): sys.exit("cannot do that")
    if command.get("bad"): return {"error": "no such thing"}
    print("more noise")
    return {"got": command}
def load():
    print("noise that no answer may have")
    return answer
serve(load)
"""
CONFIG = """parameters { key: "slots" value { string_value: "16" } }
parameters { key: "threads" value { string_value: "0" } }
"""


@pytest.mark.parametrize(
    "url", ["localhost:8001", "http://127.0.0.1:8000", "grpc://127.1.2.3:1", "http://[::1]:8"]
)
def test_loopback_is_taken(url: str) -> None:
    assert require_loopback(url) == url


@pytest.mark.parametrize(
    "url", ["192.0.2.7:8001", "http://8.8.8.8", "grpc://0.0.0.0:8001", "http://[2001:db8::1]:8000"]
)
def test_any_other_machine_is_refused(url: str) -> None:
    with pytest.raises(BenchError, match="not a loopback address"):
        require_loopback(url)


@pytest.mark.parametrize("url", ["ftp://localhost", "http://"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(BenchError, match="url"):
        require_loopback(url)


def test_a_program_answers_line_by_line_whatever_it_prints(tmp_path: Path) -> None:
    with Program("echo", [sys.executable, "-c", ECHO], tmp_path / "log") as program:
        assert program.ask(a=1) == {"got": {"a": 1}}
        assert program.ask(b=[2]) == {"got": {"b": [2]}}


def test_a_program_that_ends_is_an_error_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Program("echo", [sys.executable, "-c", ECHO], log) as program:
        with pytest.raises(BenchError, match=r"echo ended with code 1(?s:.*)cannot do that"):
            program.ask(fail=True)
        with pytest.raises(BenchError, match="echo ended with code 1"):
            program.ask()


def test_a_program_that_refuses_a_command_is_an_error_and_goes_on(tmp_path: Path) -> None:
    with Program("echo", [sys.executable, "-c", ECHO], tmp_path / "log") as program:
        with pytest.raises(BenchError, match="echo answered no such thing"):
            program.ask(bad=True)
        assert program.ask(a=1) == {"got": {"a": 1}}


def test_an_engine_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with pytest.raises(BenchError, match="no engine that can be read"):
        artifacts.manifest_of(repository)
    (repository / "smollm2_engine").mkdir(parents=True)
    (repository / "smollm2_engine/config.pbtxt").write_text(CONFIG)
    engine = artifacts.engine_of(repository)
    command = [sys.executable, str(artifacts.ROOT / "server/inprocess.py"), str(engine)]
    with (
        Program("the engine", command, tmp_path / "log") as program,
        pytest.raises(BenchError, match="make engines"),
    ):
        program.ask(do="generate", prompts=[[1]], max_tokens=1)


def test_an_engine_of_another_precision_is_refused(tmp_path: Path) -> None:
    engine = artifacts.engine_of(tmp_path)
    engine.mkdir(parents=True)
    (engine / "manifest.json").write_text('{"precision": "fp32"}')
    with pytest.raises(BenchError, match="precision fp32, the benchmark measures int8"):
        artifacts.manifest_of(tmp_path)


def test_a_repository_with_other_parameters_shares_the_artifacts(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "source/smollm2_engine"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1/model.onnx").write_text("weights")
    made = artifacts.with_parameters(source, tmp_path / "made", {"slots": "32"})
    assert artifacts.parameters_of(made) == {"slots": "32", "threads": "0"}
    assert artifacts.parameters_of(source) == {"slots": "16", "threads": "0"}
    assert (artifacts.engine_of(made) / "model.onnx").samefile(folder / "1/model.onnx")


def test_a_parameter_that_the_config_lacks_is_an_error() -> None:
    with pytest.raises(BenchError, match="seats: 0 times"):
        artifacts.edited(CONFIG, {"seats": "1"})


def test_the_committed_config_has_the_parameters_that_the_bench_sets() -> None:
    found = artifacts.parameters_of(artifacts.ROOT / "model_repository")
    assert (found["slots"], found["max_context"]) == ("16", "2048")


def test_memory_of_a_tree_counts_shared_pages_once(tmp_path: Path) -> None:
    parents = {10: 1, 11: 10, 12: 11, 13: 1}
    for pid, parent in parents.items():
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (a) b ( c) S {parent} 0 0")
        (folder / "smaps_rollup").write_text("00-ff ---p 0 0 0 [rollup]\nRss:   300 kB\nPss:    100 kB\n")
    assert sorted(tree(10, tmp_path)) == [10, 11, 12]
    assert memory_of_tree(10, tmp_path) == Memory(900 * 1024, 300 * 1024, 3)


def test_memory_of_this_process() -> None:
    found = memory_of_tree(os.getpid())
    assert found.processes >= 1
    assert found.rss >= found.pss > 0


def test_steps_that_all_streams_share() -> None:
    calls = [
        Call((), 0, 1),
        Call((5,), 1, 2),  # before the last prompt
        Call((), 2, 3),
        Call((6, 4), 3.0, 3.5),
        Call((7, 5), 4.0, 4.75),
        Call((8, 6), 6.0, 6.5),
        Call((9, 7), 9.0, 9.5),  # begins after the first answer's end
    ]
    steps = shared_steps(calls, rows=2, first_end=8.0)
    assert steps == {"positions": (6, 4), "step_s": [1.0, 2.0], "model_s": [0.5, 0.75]}
    assert shared_steps(calls[:3], rows=2, first_end=8.0)["step_s"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "192.0.2.7:8001"], "not a loopback address"),
        (["--rows", "url"], "needs --url"),
        (["--rows", "bare"], "needs the row engine"),
        (["--models", "gpt2", "--rows", "http,footprint,bare", "--quick", "--streams", "64"], "at most 32"),
        (["--models", "gpt2", "--rows", "footprint"], "gpt2 has build,transformers,engine,grpc,http"),
        (["--models", "gpt2", "--peers", "vllm"], "are for smollm2: add it to --models"),
        (["--streams", "64"], "--streams 64: must be at most 32"),
        (["--peers", "all", "--streams", "64"], "--streams 64: must be at most 32"),
        (["--repository", "nowhere"], "no engine that can be read"),
    ],
)
def test_a_wrong_command_ends_with_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(arguments) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rows", "warp"],
        ["--streams", "0"],
        ["--streams", "1,x"],
        ["--repeats", "-1"],
        ["--repeats", "x"],
        ["--models", "t5"],
        ["--peers", "gpt4all"],
    ],
)
def test_a_wrong_argument_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--help"])
    assert "--quick" in capsys.readouterr().out
