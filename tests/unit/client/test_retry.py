"""Retries and deadlines: the policy, and the client that follows it. No test sleeps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halimede import AsyncClient, Client, RetryPolicy
from halimede.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    HalimedeError,
    Internal,
    InvalidArgument,
    Unavailable,
)
from halimede.results import Chunk
from halimede.testing import FakeTransport, Step, answer
from halimede.timeouts import Deadline

BUSY = Unavailable.of("queue", "64 waiting", "limit 64")
HEARTBEAT = Chunk(num_input_tokens=3, num_output_tokens=0)


class Time:
    """A clock that advances only when the client sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


def _policy(attempts: int = 4, luck: float = 1.0) -> RetryPolicy:
    return RetryPolicy(attempts=attempts, base_s=0.1, cap_s=2.0, random=lambda: luck)


def _client(fake: FakeTransport, time: Time, *, timeout: float = 60.0, attempts: int = 4) -> Client:
    return Client(
        transport=fake, clock=time.clock, sleep=time.sleep, timeout=timeout, retry=_policy(attempts)
    )


class TestPolicy:
    def test_the_longest_delay_doubles_to_the_cap(self) -> None:
        policy = _policy(attempts=100)
        delays = [policy.delay_s(BUSY, failures, None) for failures in range(1, 8)]
        assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])

    @given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 10))
    def test_a_delay_is_within_its_bounds(
        self, failures: int, luck: float, remaining_s: float | None
    ) -> None:
        delay_s = _policy(attempts=10_000, luck=luck).delay_s(BUSY, failures, remaining_s)
        longest_s = 0.1 * 2 ** min(failures - 1, 5)  # the cap of 2 s is below the sixth
        if delay_s is None:
            assert remaining_s is not None
            assert luck * min(longest_s, 2.0) >= remaining_s
        else:
            assert 0 <= delay_s <= min(longest_s, 2.0)
            assert remaining_s is None or delay_s < remaining_s

    def test_it_gives_up_after_its_attempts(self) -> None:
        assert _policy(attempts=3).delay_s(BUSY, 2, None) is not None
        assert _policy(attempts=3).delay_s(BUSY, 3, None) is None
        assert _policy(attempts=1).delay_s(BUSY, 1, None) is None

    def test_it_gives_up_when_the_deadline_would_pass_first(self) -> None:
        assert _policy().delay_s(BUSY, 1, 0.1) is None

    @pytest.mark.parametrize("error", [Internal("x"), DeadlineExceeded("x"), HalimedeError("x")])
    def test_other_errors_are_final(self, error: HalimedeError) -> None:
        assert _policy().delay_s(error, 1, None) is None


class TestDeadline:
    def test_it_starts_when_it_is_made(self) -> None:
        time = Time()
        deadline = Deadline(5.0, time.clock)
        time.sleep(2.0)
        assert deadline.remaining_s() == 3.0
        time.sleep(4.0)
        assert deadline.remaining_s() == 0
        with pytest.raises(DeadlineExceeded, match=r"timeout: 5.0 s, has passed"):
            deadline.allowance_s()

    def test_infinity_means_no_deadline(self) -> None:
        assert Deadline(math.inf, Time().clock).remaining_s() is None

    @pytest.mark.parametrize("timeout_s", [0, -1, math.nan])
    def test_the_timeout_must_be_positive(self, timeout_s: float) -> None:
        with pytest.raises(InvalidArgument, match="timeout"):
            Deadline(timeout_s, Time().clock)


class TestClient:
    def test_a_busy_server_is_retried(self) -> None:
        fake, time = FakeTransport([BUSY], [ConnectionFailed("x")], answer("Hi")), Time()
        assert _client(fake, time).generate("?").text == "Hi"
        assert time.slept_s == pytest.approx([0.1, 0.2])

    def test_a_request_is_retried_after_heartbeats(self) -> None:
        fake = FakeTransport([HEARTBEAT, BUSY], [HEARTBEAT, *answer("Hi")])
        assert [c.text for c in _client(fake, Time()).stream("?")] == ["Hi", ""]

    def test_a_request_is_not_retried_after_the_first_token(self) -> None:
        fake, time = FakeTransport(["H", BUSY], answer("Hi")), Time()
        with _client(fake, time).stream("?") as stream:
            assert next(stream).text == "H"
            with pytest.raises(Unavailable):
                next(stream)
        assert len(fake.requests) == 1

    def test_the_last_error_is_raised_when_it_gives_up(self) -> None:
        fake = FakeTransport([BUSY], [BUSY])
        with pytest.raises(Unavailable):
            _client(fake, Time(), attempts=2).generate("?")
        assert len(fake.requests) == 2

    def test_an_error_that_is_not_retryable_is_final(self) -> None:
        fake = FakeTransport([Internal("broken")], answer("Hi"))
        with pytest.raises(Internal):
            _client(fake, Time()).generate("?")

    def test_each_attempt_gets_the_remaining_timeout(self) -> None:
        fake = FakeTransport([BUSY], [BUSY], answer("Hi"))
        _client(fake, Time(), timeout=10.0).generate("?")
        assert [request.timeout_s for request in fake.requests] == pytest.approx([10.0, 9.9, 9.7])

    def test_no_attempt_is_made_after_the_deadline(self) -> None:
        fake, time = FakeTransport([BUSY], [BUSY]), Time()
        with pytest.raises(Unavailable):
            _client(fake, time, timeout=0.25).generate("?")
        assert time.slept_s == pytest.approx([0.1])

    def test_an_error_after_the_deadline_is_raised_unchanged(self) -> None:
        late = DeadlineExceeded.of("timeout", "5000000 us", "3 tokens drawn")
        clock = iter([0.0, 0.0, 0.0, 5.1]).__next__
        client = Client(transport=FakeTransport([late]), clock=clock, timeout=5.0)
        with pytest.raises(DeadlineExceeded, match="3 tokens drawn"):
            client.generate("?")

    def test_a_call_may_have_its_own_timeout(self) -> None:
        fake = FakeTransport(answer("a"), answer("b"))
        client = _client(fake, Time())
        client.generate("?", timeout=math.inf)
        client.generate("?", timeout=3)
        assert [request.timeout_s for request in fake.requests] == [None, 3]

    @pytest.mark.anyio
    async def test_the_asynchronous_client_retries_too(self) -> None:
        turns: list[list[Step]] = [[BUSY], [HEARTBEAT, BUSY], [*answer("Hi")]]
        fake, time = FakeTransport(*turns), Time()
        client = AsyncClient(transport=fake, clock=time.clock, sleep=time.asleep, retry=_policy())
        assert (await client.generate("?")).text == "Hi"
        assert time.slept_s == pytest.approx([0.1, 0.2])
