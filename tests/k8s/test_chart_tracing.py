"""Traces in the chart: off by default. Turned on, they open the one egress port that they need."""

from __future__ import annotations

from typing import Any

import pytest

from tests.k8s.charts import Refused, objects, one, triton

URL = "http://collector.monitoring:4318/v1/traces"
ON = ("tracing.enabled=true", f"tracing.url={URL}")


def _tcp_ports(found: list[dict[str, Any]]) -> set[int]:
    rules = one(found, "NetworkPolicy")["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule["ports"] if port["protocol"] == "TCP"}


def test_off_by_default() -> None:
    assert not [argument for argument in triton(objects())["args"] if "trace-" in argument]
    assert one(objects(), "NetworkPolicy")["spec"]["egress"] == []


def test_the_launcher_gets_the_url_and_the_policy_lets_it_reach_the_collector() -> None:
    found = objects(None, *ON, "tracing.sampleRate=100")
    arguments = triton(found)["args"]
    assert f"--trace-url={URL}" in arguments
    assert "--trace-sample-rate=100" in arguments
    assert _tcp_ports(found) == {53, 4318}


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://c/v1/traces", 80), ("https://c/v1/traces", 443), ("http://[fd00::1]:9/v1/t", 9)],
)
def test_the_port_is_that_of_the_url(url: str, port: int) -> None:
    assert _tcp_ports(objects(None, "tracing.enabled=true", f"tracing.url={url}")) == {53, port}


def test_flags_of_triton_come_behind_ours() -> None:
    arguments = triton(objects("tls", *ON))["args"]
    assert arguments.index(f"--trace-url={URL}") < arguments.index("--")


@pytest.mark.parametrize(
    "settings",
    [
        ("tracing.enabled=true",),
        ("tracing.url=collector:4318",),
        ("tracing.url=http://collector:4318",),
        ("tracing.url=http://user:secret@c/v1/traces",),
        (*ON, "tracing.sampleRate=0"),
        ("tracing.rate=1",),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="tracing"):
        objects(None, *settings)
