"""The parsers of metrics, of URLs and of the repository's index."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halimede.errors import InvalidArgument, ProtocolError
from halimede.target import parse_target
from halimede.wire import parse_metrics
from halimede.wire.repository import model_info

METRICS = """\
# HELP halimede_requests_rejected_total Requests refused
# TYPE halimede_requests_rejected_total counter
halimede_requests_rejected_total{model="smollm2",reason="queue"} 3
halimede_requests_rejected_total{model="smollm2",reason="invalid"} 2.5e1
halimede_ttft_seconds_bucket{le="+Inf",} 7 1395066363000
  nv_gpu_utilization   NaN
up 1
"""

label = st.text(st.characters(exclude_characters="\r\x85\u2028\u2029", codec="utf-8"))


class TestMetrics:
    def test_samples(self) -> None:
        metrics = parse_metrics(METRICS)
        assert len(metrics.samples) == 5
        assert metrics.total("halimede_requests_rejected_total") == 28
        assert metrics.total("halimede_requests_rejected_total", reason="queue") == 3
        assert metrics.total("halimede_requests_rejected_total", reason="other") is None
        assert metrics.select("halimede_ttft_seconds_bucket", le="+Inf")[0].value == 7
        assert math.isnan(metrics.select("nv_gpu_utilization")[0].value)

    @given(st.dictionaries(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]*", fullmatch=True), label), st.floats())
    def test_any_labels_and_value_are_parsed(self, labels: dict[str, str], value: float) -> None:
        escape = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
        pairs = ",".join(f'{name}="{text.translate(escape)}"' for name, text in labels.items())
        (sample,) = parse_metrics(f"x{{{pairs}}} {value!r}\n").samples
        assert sample.labels == labels
        assert sample.value == value or math.isnan(value)

    @pytest.mark.parametrize("line", ["x", "x one", "x{a=1} 2", 'x{a="1} 2', "<html>", 'x{a="1"b="2"} 3'])
    def test_other_lines_are_refused(self, line: str) -> None:
        with pytest.raises(ProtocolError, match="Prometheus"):
            parse_metrics(line)


class TestTarget:
    @pytest.mark.parametrize(
        ("url", "whole"),
        [
            ("localhost:9001", "grpc://localhost:9001"),
            ("localhost", "grpc://localhost:8001"),
            ("grpc://10.0.0.1", "grpc://10.0.0.1:8001"),
            ("grpcs://llm.example.org", "grpcs://llm.example.org:443"),
            ("http://localhost", "http://localhost:8000"),
            ("https://example.org/llm/", "https://example.org:443/llm"),
            ("[::1]:9001", "grpc://[::1]:9001"),
        ],
    )
    def test_defaults_are_tritons(self, url: str, whole: str) -> None:
        assert str(parse_target(url)) == whole
        assert parse_target(whole) == parse_target(url)

    @pytest.mark.parametrize(
        ("url", "metrics"),
        [
            ("localhost", "localhost:8002"),
            ("localhost:9001", "localhost:9002"),
            ("http://localhost:9000", "localhost:9002"),
            ("https://[::1]", "[::1]:8002"),
        ],
    )
    def test_metrics_are_on_the_port_next_to_the_others(self, url: str, metrics: str) -> None:
        assert parse_target(url).metrics_url == f"http://{metrics}/metrics"

    @pytest.mark.parametrize(
        "url", ["", "ftp://x", "localhost:no", "localhost:99999", "grpc://host/path", "http://"]
    )
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            parse_target(url)
        assert caught.value.field == "url"


class TestRepository:
    def test_a_model_without_a_config(self) -> None:
        model = model_info({"name": "m", "state": "UNAVAILABLE", "reason": "no engine"}, None)
        assert (model.ready, model.version, model.backend, model.steps) == (False, "", None, ())

    def test_a_missing_state_means_unavailable(self) -> None:
        assert model_info({"name": "m"}, None).state == "UNAVAILABLE"

    @pytest.mark.parametrize("row", [{}, []])
    def test_a_malformed_row_is_refused(self, row: dict[str, str]) -> None:
        with pytest.raises(ProtocolError):
            model_info(row, None)
