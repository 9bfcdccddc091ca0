"""What is refused before Triton starts: machine, ports, models."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import Refusal, machine, repository
from launcher.machine import Platform
from launcher.ports import check_ports, held

GOOD = Platform("Linux", "x86_64", "glibc", "2.35")


def _write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_oldest_good_platform() -> None:
    machine.check_platform(GOOD)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"system": "Darwin", "machine": "arm64"}, "Darwin arm64"),
        ({"machine": "aarch64"}, "Linux aarch64"),
        ({"libc": "", "libc_version": ""}, "C library is another"),
        ({"libc_version": "2.31"}, "glibc 2.31"),
    ],
)
def test_other_platforms_are_refused(change: dict[str, str], named: str) -> None:
    with pytest.raises(Refusal, match=named):
        machine.check_platform(dataclasses.replace(GOOD, **change))


def test_shared_memory_that_is_too_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room = SimpleNamespace(f_bavail=1, f_frsize=machine.MIB)
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    for models, needed in ((1, 32), (3, 64)):
        with pytest.raises(Refusal, match=rf"1 MiB free, {needed} MiB are needed.*--shm-size"):
            machine.check_shared_memory(tmp_path, models)


def test_shared_memory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="Triton needs it"):
        machine.check_shared_memory(tmp_path / "shm")


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_passes() -> None:
    with held("127.0.0.1", {"http": 0}) as ports:
        check_ports("127.0.0.1", ports)


def test_several_may_have_any_port_that_is_free() -> None:
    check_ports("127.0.0.1", {"http": 0, "grpc": 0, "metrics": 0})


def test_a_port_in_use_names_its_holder(listener: int) -> None:
    with pytest.raises(Refusal) as refused:
        check_ports("127.0.0.1", {"grpc": listener})
    assert f"--grpc-port {listener}: in use by" in str(refused.value)
    assert f"(process {os.getpid()})" in str(refused.value)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range(port: int) -> None:
    with pytest.raises(Refusal, match="must be between 1 and 65535, or 0 for a free port"):
        check_ports("127.0.0.1", {"http": port})


def test_two_services_on_one_port() -> None:
    with pytest.raises(Refusal, match="--grpc-port 8123: --http-port has the same"):
        check_ports("127.0.0.1", {"http": 8123, "grpc": 8123})


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(Refusal, match=r"cannot listen on 192\.0\.2\.1"):
        check_ports("192.0.2.1", {"http": 8123})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("ready", "ready_engine", "raw", "raw_engine", "plain"):
        _write(tmp_path / name / "config.pbtxt")
        (tmp_path / name / "1").mkdir()
    _write(tmp_path / "ready_engine/1/manifest.json")
    return tmp_path


def test_by_default_what_is_built_is_served(models: Path) -> None:
    assert repository.models_to_serve(models, []) == ["ready"]


def test_named_models_are_served_once(models: Path) -> None:
    assert repository.models_to_serve(models, ["plain", "ready", "plain"]) == ["plain", "ready"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raw", "raw is not built: make engines MODEL=raw"),
        ("nope", "nope: no such model in .*; built there: ready"),
    ],
)
def test_models_that_cannot_be_served(models: Path, name: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        repository.models_to_serve(models, [name])


def test_an_empty_repository(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="make engines"):
        repository.models_to_serve(tmp_path, [])
    with pytest.raises(Refusal, match="no such model repository"):
        repository.models_to_serve(tmp_path / "none", [])
