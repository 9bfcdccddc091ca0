from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import launch
from launcher import Refusal
from launcher.tracing import Tracing
from launcher.triton import Triton

URL = "http://collector.monitoring:4318/v1/traces"


def command(*arguments: str) -> list[str]:
    options = launch.parse(["--model-repository", "/r", *arguments])
    triton = Triton(Path("/t/bin/tritonserver"), Path("/t/backends"), None, ())
    return launch.command(options, triton, Path("/b"), ["smollm2"], "halimede_1_00000000_")


def test_off_unless_asked_for() -> None:
    assert not [flag for flag in command() if "trace" in flag]
    assert launch.parse([]).tracing.environment == {}


def test_a_url_turns_on_tritons_spans_and_the_engines() -> None:
    arguments = ("--trace-url", URL, "--trace-sample-rate", "100")
    flags = [flag.removeprefix("--trace-config=") for flag in command(*arguments) if "--trace" in flag]
    assert flags[:4] == ["mode=opentelemetry", "level=TIMESTAMPS", "rate=100", f"opentelemetry,url={URL}"]
    assert launch.parse(arguments).tracing.environment == {"HALIMEDE_TRACE_URL": URL}


def test_flags_of_ones_own_come_later() -> None:
    assert command("--trace-url", URL, "--", "--trace-config=rate=7")[-1] == "--trace-config=rate=7"


@pytest.mark.parametrize("url", [URL, "https://c/v1/traces", "http://[::1]:4318/v1/traces", "http://c/x?y=z"])
def test_urls_of_collectors_are_taken(url: str) -> None:
    Tracing(url).check()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "scheme ''"),
        ("localhost:4318", "scheme 'localhost'"),
        ("grpc://c:4317", "scheme 'grpc'"),
        ("http://c:4318", "names no path"),
        ("http://c:4318/", "names no path"),
        ("http:///v1/traces", "names no host"),
        ("http://c:99999/v1/traces", "Port out of range"),
        ("http://c:0/v1/traces", "names port 0"),
        ("http://c:x/v1/traces", "Port could not be cast"),
        ("http://[::1/v1/traces", "Invalid IPv6"),
        ("http://user:secret@c/v1/traces", "holds a user"),
        ("http://c/v1/tr aces", "holds a space"),
        ("http://c/v1,rate=1", "a comma"),
        ("http://c/v1/tracés", "beyond ASCII"),
        ("http://c/v1/traces\n", "holds a space"),
    ],
)
def test_an_invalid_url_of_a_collector_is_refused(url: str, problem: str) -> None:
    with pytest.raises(Refusal, match=r"--trace-url") as refused:
        Tracing(url).check()
    assert problem in str(refused.value)
    assert "http://localhost:4318/v1/traces" in str(refused.value)


@given(st.text())
def test_any_text_is_refused_or_one_argument(text: str) -> None:
    try:
        Tracing(text).check()
    except Refusal:
        return
    assert text.startswith(("http://", "https://", "HTTP", "HTTPS"))
    assert not set(text) & set(' ,"\n\t\\')


@pytest.mark.parametrize("rate", [0, -1, 2**31])
def test_a_rate_out_of_its_limits_is_refused(rate: int) -> None:
    with pytest.raises(Refusal, match=rf"--trace-sample-rate {rate}"):
        Tracing(URL, rate).check()
