"""What a sample says of the chunks it got."""

from __future__ import annotations

import pytest

from loadtest.bench.sample import percentile, sample_of, token_gaps
from loadtest.errors import BenchError


def test_rates_and_latencies_of_one_stream() -> None:
    sample = sample_of("smollm2", "grpc", 1, 2, [[(0.5, 1), (0.6, 1), (0.8, 2)]])
    assert (sample.model, sample.row, sample.streams, sample.beams) == ("smollm2", "grpc", 1, 1)
    assert sample.repeat == 2
    assert (sample.tokens, sample.chunks) == (4, 3)
    assert sample.tokens_per_s == pytest.approx(4 / 0.8)
    assert sample.decode_tokens_per_s == pytest.approx(3 / 0.3)
    assert sample.ttft_s == (0.5,)
    assert sample.itl_p50_s == pytest.approx(0.1)


def test_decoding_counts_only_while_all_streams_run() -> None:
    early = [(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)]
    late = [(2.0, 1), (3.0, 1), (4.0, 1), (5.0, 1)]
    sample = sample_of("smollm2", "engine", 1, 0, [early, late])
    assert sample.decode_tokens_per_s == pytest.approx(4 / 2)
    assert sample.tokens_per_s == pytest.approx(8 / 5)
    assert (sample.ttft_p50_s, sample.ttft_p90_s) == pytest.approx((1.5, 1.9))


def test_streams_that_never_run_together_have_no_shared_rate() -> None:
    assert (
        sample_of("smollm2", "http", 1, 0, [[(1, 1), (2, 1)], [(3, 1), (4, 1)]]).decode_tokens_per_s is None
    )


def test_a_joined_chunk_shares_its_wait() -> None:
    assert token_gaps([(1.0, 3), (1.6, 2), (1.7, 1)]) == pytest.approx([0.3, 0.3, 0.1])


def test_an_answer_in_one_piece_is_no_stream() -> None:
    with pytest.raises(BenchError, match="url: every answer came in one piece"):
        sample_of("smollm2", "url", 1, 0, [[(1.0, 64)]])


def test_a_tiny_model_may_answer_in_one_piece() -> None:
    sample = sample_of("tiny-gpt2", "grpc", 1, 0, [[(1.0, 64)]], may_join=True)
    assert (sample.tokens_per_s, sample.ttft_s, sample.itl_p50_s) == (64, (1.0,), None)


def test_an_answer_of_a_search_has_a_rate_and_no_first_token() -> None:
    sample = sample_of("bart-base", "grpc", 4, 0, [[(2.0, 64)], [(4.0, 64)]])
    assert sample.tokens_per_s == pytest.approx(32)
    assert (sample.beams, sample.ttft_p50_s, sample.itl_p50_s, sample.decode_tokens_per_s) == (4, *[None] * 3)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7], 90, 7), ([1, 2], 50, 1.5), ([4, 1, 3, 2], 0, 1), ([4, 1, 3, 2], 100, 4), (range(11), 90, 9)],
)
def test_percentiles(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected)
