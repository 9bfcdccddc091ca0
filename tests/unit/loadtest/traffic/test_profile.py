"""Profiles: those that are shipped load, and every wrong key, type or range is named."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import TrafficError
from loadtest.traffic import arrivals, lengths
from loadtest.traffic.profile import (
    Bad,
    MixEntry,
    Profile,
    Protocol,
    SharedPrefix,
    Slo,
    Sweep,
    Task,
    load_profile,
    profile_of,
)
from loadtest.traffic.schedule import schedule
from tests.paths import ROOT

SHIPPED = sorted((ROOT / "loadtest" / "profiles").glob("*.toml"))
ENTRY = {"name": "a", "prompt_tokens": {"constant": 8}, "output_tokens": {"constant": 4}}


def _with(**changes: Any) -> dict[str, Any]:
    return {"mix": [ENTRY], **changes}


def _entry(**changes: Any) -> dict[str, Any]:
    return {"mix": [{**ENTRY, **changes}]}


def test_the_profiles_that_the_documentation_lists_are_there() -> None:
    assert {path.stem for path in SHIPPED} == {
        "azure-conversations", "burst", "chat", "hostile", "several-models", "smoke", "steady", "summarize",
    }  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_profile_loads_and_fits_its_context(path: Path) -> None:
    profile = load_profile(path)
    assert profile.name == path.stem
    assert profile.description
    assert profile.max_context
    found = list(islice(schedule(profile), 300))
    assert found
    for planned in found:
        fits = planned.tokens_in + planned.tokens_out < profile.max_context
        assert fits != (planned.kind.bad is Bad.TOO_LONG)
        # A drawn length that does not fit would bend the distribution that the profile asks for.
        assert not planned.clipped or isinstance(profile.arrivals, arrivals.Trace)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_profile_survives_json(path: Path) -> None:
    profile = load_profile(path)
    assert profile_of(json.loads(json.dumps(profile.as_table(), allow_nan=False))) == profile


def test_hostile_has_a_bad_request_of_each_sort_and_disconnects_from_both_streams() -> None:
    mix = load_profile(ROOT / "loadtest" / "profiles" / "hostile.toml").mix
    assert {entry.bad for entry in mix} == {None, *Bad}
    assert {entry.protocol for entry in mix if entry.disconnect_after_tokens} == {
        Protocol.GRPC,
        Protocol.HTTP,
    }


def test_what_is_left_out_has_the_documented_defaults() -> None:
    profile = profile_of(_with(), name="mine")
    assert profile == Profile("mine", profile.mix)
    assert profile.mix == (
        MixEntry("a", prompt_tokens=lengths.Constant(8), output_tokens=lengths.Constant(4)),
    )
    assert profile.total_s == 65


_entries: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b"])},
    optional={
        "weight": st.floats(0.1, 9),
        "protocol": st.sampled_from(["grpc", "http"]),
        "model": st.sampled_from(["m", "n"]),
        "task": st.sampled_from([task.value for task in Task]),
        "prompt_tokens": st.just({"uniform": [2, 9]}),
        "output_tokens": st.just({"quantiles": {"0.1": 3, "0.25": 9.5}}),
        "shared_prefix": st.just({}) | st.just({"share": 0.1, "tokens": 3, "groups": 2}),
        "disconnect_after_tokens": st.integers(1, 9),
        "temperature": st.floats(0, 2),
        "ignore_eos": st.booleans(),
        "timeout_s": st.floats(0.1, 100),
    },
)
_profiles: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "mix": st.lists(_entries, min_size=1, max_size=2, unique_by=lambda entry: entry["name"]),
        "arrivals": st.fixed_dictionaries(
            {"kind": st.just("trace")},
            optional={"speed": st.floats(0.1, 9), "scale": st.floats(0.1, 9), "variation": st.floats(0.1, 9)},
        ),
    },
    optional={
        "description": st.just("words"),
        "max_context": st.integers(128, 9000),
        "seed": st.integers(0, 2**63 - 1),
        "slo": st.dictionaries(st.sampled_from([item.name for item in fields(Slo)]), st.floats(0.1, 1)),
        "sweep": st.fixed_dictionaries({}, optional={"start_per_s": st.floats(0.1, 99)}),
    },
)


@given(_profiles)
def test_what_is_read_and_written_is_read_the_same(content: dict[str, Any]) -> None:
    profile = profile_of(content)
    assert profile_of(json.loads(json.dumps(profile.as_table()))) == profile


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "^mix: is missing"),
        ({"mix": []}, "mix: .*must be a list that is not empty"),
        ({"mix": [3]}, r"mix\[0\]: 3, must be a table"),
        (
            _with(durations=3),
            "^durations: is not known here; known are arrivals, description, duration_s, max_",
        ),
        (_with(name=3), "name: 3, must be text"),
        (_with(duration_s=0), "duration_s: 0, must be above 0"),
        (_with(duration_s="3"), "duration_s: '3', must be a number above 0"),
        (_with(duration_s=float("nan")), "duration_s: nan, must be a number"),
        (_with(warmup_s=-1), "warmup_s: -1, must be of at least 0"),
        (_with(seed=-1), "seed: -1, must be a whole number from 0"),
        (_with(max_context=100), "max_context: 100, must be a whole number from 128"),
        (_with(arrivals={}), r"arrivals\.kind: is missing"),
        (
            _with(arrivals={"kind": "burst"}),
            r"kind: 'burst', must be one of closed, constant, poisson, gamma",
        ),
        (
            _with(arrivals={"kind": "closed", "users": 0}),
            r"arrivals\.users: 0, must be a whole number from 1",
        ),
        (
            _with(arrivals={"kind": "closed", "rate_per_s": 1}),
            "rate_per_s: is not known here; known are kind",
        ),
        (_with(arrivals={"kind": "poisson"}), r"arrivals\.rate_per_s: is missing"),
        (
            _with(arrivals={"kind": "constant", "rate_per_s": 0}),
            "rate_per_s: 0, must be above 0 and at most 1",
        ),
        (_with(arrivals={"kind": "trace", "speed": 0}), "speed: 0, must be above 0 and at most 10000"),
        (_with(arrivals={"kind": "trace", "file": "x", "rate_per_s": 1}), "brings its own times"),
        (_with(arrivals={"kind": "trace", "file": "x", "columns": ["a", "b"]}), "must name three columns"),
        (_entry(weight=0), r"mix\[0\]\.weight: 0, must be above 0"),
        (_entry(protocol="ftp"), r"mix\[0\]\.protocol: 'ftp', must be one of grpc, http, unary"),
        (_entry(task="sing"), "task: 'sing', must be one of chat, complete"),
        (_entry(bad="rude"), "bad: 'rude', must be one of too_long"),
        (_entry(ignore_eos=1), "ignore_eos: 1, must be true or false"),
        (_entry(temperature=-1), "temperature: -1, must be of at least 0"),
        (_entry(prompt_tokens=8), r"mix\[0\]\.prompt_tokens: 8, must be a table"),
        (_entry(shared_prefix={"share": 2}), r"shared_prefix\.share: 2, must be of at least 0 and at most 1"),
        (
            _entry(shared_prefix={"size": 2}),
            r"shared_prefix\.size: is not known here; known are groups, share",
        ),
        (_entry(disconnect_after_tokens=3, protocol="unary"), "a unary request has no stream to leave"),
        (_entry(disconnect_after_tokens=3, bad="empty"), "a bad request has no answer to leave"),
        ({"mix": [ENTRY, ENTRY]}, r"mix\[1\]\.name: 'a', is given twice"),
        ({"mix": [{"name": "a"}]}, r"mix\[0\]\.prompt_tokens: is missing; only a trace brings lengths"),
        (_with(slo={"ttft_p98_s": 1}), r"slo\.ttft_p98_s: is not known here; known are e2e_p99_s"),
        (_with(slo={"ttft_p99_s": 0}), r"slo\.ttft_p99_s: 0, must be above 0"),
        (_with(slo={"error_ratio": 2}), r"slo\.error_ratio: 2, must be of at least 0 and at most 1"),
        (_with(sweep={"start_per_s": 2, "max_per_s": 1}), r"sweep\.max_per_s: 1, must be of at least 2"),
        (_with(sweep={"resolution": 0}), r"sweep\.resolution: 0, must be of at least 0\.01 and at most 1"),
    ],
)
def test_a_wrong_profile_is_refused_by_key_value_and_limit(content: dict[str, Any], message: str) -> None:
    with pytest.raises(TrafficError, match=message):
        profile_of(content)


def test_a_missing_or_broken_profile_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(TrafficError, match=r"mine\.toml: cannot be read: No such file"):
        load_profile(path)
    path.write_text("a = = 3", "utf-8")
    with pytest.raises(TrafficError, match=r"mine\.toml: is not TOML"):
        load_profile(path)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(TrafficError, match=r"mine\.toml: is not TOML"):
        load_profile(path)
    path.write_text("[[mix]]\nnme = 3", "utf-8")
    with pytest.raises(TrafficError, match=r"mine\.toml: mix\[0\]\.name: is missing"):
        load_profile(path)


def test_a_traces_file_is_in_the_folder_of_its_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[arrivals]\nkind = "trace"\nfile = "t.csv"\n[[mix]]\nname = "a"\n', "utf-8")
    found = load_profile(path).arrivals
    assert isinstance(found, arrivals.Trace)
    assert found.file == tmp_path / "t.csv"


DOCUMENTED = [
    Profile, Slo, Sweep, MixEntry, SharedPrefix, arrivals.Closed, arrivals.Constant, arrivals.Poisson,
    arrivals.Gamma, arrivals.Trace,
]  # fmt: skip
VALUES = [
    *arrivals.KINDS,
    *lengths.KINDS,
    *(member.value for kind in (Protocol, Task, Bad) for member in kind),
]


@pytest.mark.parametrize(
    "name", sorted({item.name for kind in DOCUMENTED for item in fields(kind)} | {*VALUES})
)
def test_every_key_and_every_name_that_it_takes_is_documented(name: str) -> None:
    page = (ROOT / "docs" / "loadtest.md").read_text("utf-8")
    assert f"`{name}`" in page


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_profile_is_documented(path: Path) -> None:
    assert f"`{path.stem}`" in (ROOT / "docs" / "loadtest.md").read_text("utf-8")
