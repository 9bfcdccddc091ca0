"""The command line and environment that tritonserver is started with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import launch
from launcher.machine import Interpreter
from launcher.ports import ports_told, ready_line
from launcher.process import Server
from launcher.triton import Triton

TRITON = Triton(Path("/t/bin/tritonserver"), Path("/t/backends"), None, (Path("/t/libs"),))
PYTHON = Interpreter("3.11", Path("/venv/bin"), (), "libpython3.11.so.1.0", (), "1.26.4")


def _command(*arguments: str) -> list[str]:
    options = launch.parse(["--model-repository", "/r", *arguments])
    return launch.command(options, TRITON, Path("/b"), ["smollm2"], "halimede_1_00000000_")


def _flags(*arguments: str) -> dict[str, str]:
    pairs = (flag.removeprefix("--").partition("=") for flag in _command(*arguments)[1:])
    return {name: value for name, _, value in pairs}


def test_binds_every_service_to_loopback_by_default() -> None:
    flags = _flags()
    for service, port in {"http": "8000", "grpc": "8001", "metrics": "8002"}.items():
        assert flags[f"{service}-address"] == "127.0.0.1"
        assert flags[f"{service}-port"] == port


def test_host_and_ports_reach_triton() -> None:
    flags = _flags("--host", "0.0.0.0", "--grpc-port", "9001")
    assert {flags[f"{service}-address"] for service in ("http", "grpc", "metrics")} == {"0.0.0.0"}
    assert flags["grpc-port"] == "9001"


@pytest.mark.parametrize("host", ["::", "::1"])
def test_an_ipv6_host_is_written_as_each_server_wants_it(host: str) -> None:
    flags = _flags("--host", host)
    found = [flags[f"{service}-address"] for service in ("http", "grpc", "metrics")]
    assert found == [f"ipv6:{host}", f"[{host}]", f"ipv6:{host}"]


@pytest.mark.parametrize("threads", ["-1", "1025", "two"])
def test_threads_out_of_their_range_are_refused(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        launch.parse(["--threads", threads])
    assert f"{threads!r}, must be a whole number in [0, 1024]" in capsys.readouterr().err


def test_models_are_loaded_explicitly() -> None:
    command = _command()
    assert "--model-control-mode=explicit" in command
    assert [flag for flag in command if flag.startswith("--load-model")] == ["--load-model=smollm2"]


def test_clients_may_ping_as_often_as_grpc_lets_them() -> None:
    assert int(_flags()["grpc-http2-min-recv-ping-interval-without-data"]) < 1000
    own = _flags("--", "--grpc-http2-min-recv-ping-interval-without-data=60000")
    assert own["grpc-http2-min-recv-ping-interval-without-data"] == "60000"  # Triton takes the last one


def test_one_model_that_is_being_replaced_does_not_make_all_unready() -> None:
    assert _flags()["strict-readiness"] == "false"


def test_the_banner_has_a_command_for_each_model_by_its_task(tmp_path: Path) -> None:
    for name, task in (("gpt2", "complete"), ("bart", "summarize"), ("smollm2", "chat")):
        for version, found in (("1", "other"), ("2", task), ("10.old", "other")):
            folder = tmp_path / f"{name}_engine" / version
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text(json.dumps({"task": found}))
    options = launch.parse(["--model-repository", str(tmp_path), "--grpc-port", "9001"])
    lines = launch.banner(options, ["bart", "echo", "gpt2", "smollm2"], 1.25).splitlines()
    assert lines[0].startswith("ready in 1.2 s on http://127.0.0.1:8000, grpc 127.0.0.1:9001, ")
    assert lines[1:5] == [
        "  bart     halimede summarize @FILE --url 127.0.0.1:9001 --model bart",
        "  echo     served, with inputs of its own",
        '  gpt2     halimede generate "Once upon a time" --url 127.0.0.1:9001 --model gpt2',
        "  smollm2  halimede chat --url 127.0.0.1:9001 --model smollm2",
    ]


def test_the_ready_line_tells_programs_the_ports() -> None:
    ports = {"http": 43121, "grpc": 43122, "metrics": 43123}
    line = ready_line(ports, 1.2345)
    assert line == 'READY {"http": 43121, "grpc": 43122, "metrics": 43123, "seconds": 1.234}'
    assert ports_told(f"a warning\n{line}\n") == ports
    assert ports_told("a warning\nready in 1.2 s\nREADY {") is None


def test_regions_carry_the_prefix_of_this_server() -> None:
    assert "--backend-config=python,shm-region-prefix-name=halimede_1_00000000_" in _command()


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("error", {"error"}),
        ("warning", {"error", "warning"}),
        ("info", {"error", "warning", "info"}),
        ("verbose", {"error", "warning", "info", "verbose"}),
    ],
)
def test_log_level(level: str, shown: set[str]) -> None:
    flags = _flags("--log-level", level)
    names = ("error", "warning", "info", "verbose")
    assert {name for name in names if flags[f"log-{name}"] in ("true", "1")} == shown


def test_shared_memory_is_restricted_to_a_random_key() -> None:
    keys = set()
    for flag in ("--grpc-restricted-protocol=", "--http-restricted-api="):
        for _ in range(2):
            (given,) = (
                one
                for one in _command("--", f"{flag}inference:key=x")
                if "shared-memory" in one and flag in one
            )
            api, _, key = given.removeprefix(flag).partition("=")
            assert api == "shared-memory:nobody"
            assert len(key) == 32
            keys.add(key)
    assert len(keys) == 4


def test_a_users_own_restriction_of_shared_memory_is_kept() -> None:
    theirs = [
        "--grpc-restricted-protocol=shared-memory,trace:k=v",
        "--http-restricted-api=shared-memory,trace:k=v",
    ]
    assert [flag for flag in _command("--", *theirs) if "restricted" in flag] == theirs


def test_no_request_is_kept_for_reuse() -> None:
    assert _flags()["grpc-infer-allocation-pool-size"] == "0"


def test_what_follows_two_dashes_goes_to_triton_last() -> None:
    assert _command("--http-port", "9000", "--", "--id=x", "--rate-limit=off")[-2:] == [
        "--id=x",
        "--rate-limit=off",
    ]


def test_the_embedded_python_is_the_one_first_on_path() -> None:
    base = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/mine", "HOME": "/h"}
    found = launch.environment(base, PYTHON, TRITON)
    assert found["PATH"] == "/venv/bin:/usr/bin"
    assert found["LD_LIBRARY_PATH"] == "/t/libs:/mine"
    assert found["HOME"] == "/h"


def test_memory_comes_from_two_arenas_unless_the_environment_says_how_many() -> None:
    assert launch.environment({}, PYTHON, TRITON)["MALLOC_ARENA_MAX"] == "2"
    assert launch.environment({"MALLOC_ARENA_MAX": "8"}, PYTHON, TRITON)["MALLOC_ARENA_MAX"] == "8"


def test_an_empty_environment_still_finds_bash() -> None:
    assert os.defpath in launch.environment({}, PYTHON, TRITON)["PATH"]


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "127.0.0.1:8001"), ("0.0.0.0", "127.0.0.1:8001"), ("::", "[::1]:8001")],
)
def test_the_address_shown_can_be_reached(host: str, url: str) -> None:
    assert launch.parse(["--host", host]).url("grpc") == url


@pytest.mark.parametrize(
    ("program", "code"), [("import os; os.kill(os.getpid(), 11)", 1), ("raise SystemExit(3)", 3)]
)
def test_a_crash_before_it_is_ready_is_a_failed_start(program: str, code: int) -> None:
    """Seen: after a model failed to load, Triton can end in a segmentation fault of its own."""
    server = Server([sys.executable, "-c", program], dict(os.environ), grace_seconds=1)
    assert launch.never_ready(server) == code


def test_an_unrequested_end_has_the_exit_code_of_a_fault() -> None:
    """An engine that cannot go on ends its server in order; whoever watches must start it again."""
    assert launch.ended(Server([sys.executable, "-c", ""], dict(os.environ), grace_seconds=1)) == 1
    asked = Server([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ), grace_seconds=1)
    asked.stop()
    assert launch.ended(asked) == 128 + 15
