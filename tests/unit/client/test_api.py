"""The public names of the package, and rules about its own files."""

from __future__ import annotations

import subprocess
import sys
from typing import get_type_hints

import pytest

import halimede
import halimede.errors
import halimede.testing
import halimede.wire
from halimede.sampling import Sampling, SamplingFields
from tests.paths import ROOT

CLIENT = ROOT / "client"


def test_the_public_names() -> None:
    assert halimede.__all__ == [
        "Alternative",
        "ApiKey",
        "AsyncClient",
        "AsyncStream",
        "AsyncTransport",
        "Cancelled",
        "Chunk",
        "Client",
        "ConnectionFailed",
        "ConnectionLost",
        "DeadlineExceeded",
        "Generation",
        "HalimedeError",
        "Health",
        "Internal",
        "InvalidArgument",
        "Message",
        "Metrics",
        "ModelCard",
        "ModelInfo",
        "NotFound",
        "PermissionDenied",
        "ProtocolError",
        "RetryPolicy",
        "Sample",
        "Sampling",
        "ServerError",
        "Stream",
        "Timing",
        "Tls",
        "TlsFailed",
        "TokenLogprob",
        "Transport",
        "TransportError",
        "Unavailable",
        "Unsupported",
    ]


@pytest.mark.parametrize("module", [halimede, halimede.errors, halimede.testing, halimede.wire])
def test_every_public_name_can_be_imported(module: object) -> None:
    names: list[str] = getattr(module, "__all__")  # noqa: B009 - not every object has it
    assert names
    assert all(getattr(module, name) is not None for name in names)
    with pytest.raises(AttributeError):
        getattr(module, "no_such_name")  # noqa: B009


def test_the_package_exports_every_error() -> None:
    assert set(halimede.errors.__all__) <= set(halimede.__all__)


def test_sampling_and_its_keywords_have_the_same_fields() -> None:
    assert get_type_hints(SamplingFields) == get_type_hints(Sampling)


def test_the_package_is_typed() -> None:
    assert (CLIENT / "halimede" / "py.typed").is_file()


def test_the_synchronous_client_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, CLIENT / "unasync.py", "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import halimede", "asyncio grpc httpx numpy typer rich"),
        ("import halimede.wire, halimede.testing", "asyncio grpc httpx numpy typer rich"),
        ("import halimede.cli", "asyncio grpc httpx numpy"),
        ("from halimede import Client; Client()", "httpx typer"),
        ("from halimede import Client; Client('http://localhost')", "grpc numpy"),
    ],
)
def test_nothing_is_imported_before_it_is_needed(code: str, unwanted: str) -> None:
    check = f"import sys; {code}; print(*sys.modules.keys() & set({unwanted.split()}))"
    shown = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=CLIENT
    )
    assert shown.stdout.strip() == ""
