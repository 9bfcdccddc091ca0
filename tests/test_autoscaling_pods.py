"""What a metric asks for, against the documented algorithm of the HPA."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.autoscaling.pods import (
    CpuSample,
    NoMetric,
    Phase,
    Pod,
    Tolerance,
    from_cpu,
    from_pods,
    from_total,
    from_value,
)

WITHIN = Tolerance()
values = st.lists(st.integers(0, 50_000), min_size=1, max_size=12)
targets = st.integers(100, 20_000)


def ready(count: int) -> list[Pod]:
    return [Pod(f"p{index}", Phase.READY) for index in range(count)]


def named(found: list[int]) -> dict[str, int]:
    return {f"p{index}": value for index, value in enumerate(found)}


@pytest.mark.parametrize(
    ("value", "target", "replicas"), [(200, 100, 6), (50, 100, 2), (109, 100, 3), (91, 100, 3), (111, 100, 4)]
)
def test_the_documented_examples(value: int, target: int, replicas: int) -> None:
    """Twice the target doubles, half of it halves, a tenth either way changes nothing."""
    assert from_pods(named([value] * 3), target, ready(3), 3, WITHIN) == replicas


@given(values, targets)
def test_the_formula_holds_beyond_the_tolerance(found: list[int], target: int) -> None:
    ratio = sum(found) // len(found) / target
    replicas = from_pods(named(found), target, ready(len(found)), len(found), WITHIN)
    assert replicas == (len(found) if 0.9 <= ratio <= 1.1 else math.ceil(len(found) * ratio))


@given(values, targets, st.integers(1, 5), st.sampled_from([Phase.PENDING, Phase.READY]))
def test_pods_without_a_value_never_add_to_a_change_nor_turn_it(
    found: list[int], target: int, more: int, phase: Phase
) -> None:
    current = len(found) + more
    pods = ready(len(found)) + [Pod(f"new{index}", phase) for index in range(more)]
    replicas = from_pods(named(found), target, pods, current, WITHIN)
    ratio = sum(found) // len(found) / target
    if ratio > 1:
        assert current <= replicas <= max(current, math.ceil(sum(found) / target) + 1)
    elif phase is Phase.READY:
        assert math.ceil(ratio * len(found)) <= replicas <= current


@given(values, targets, st.integers(0, 11))
def test_terminating_pods_do_not_count(found: list[int], target: int, ends: int) -> None:
    ends = min(ends, len(found) - 1)
    pods = [Pod(pod.name, Phase.TERMINATING) for pod in ready(ends)] + ready(len(found))[ends:]
    left = {f"p{index}": found[index] for index in range(ends, len(found))}
    current = len(left)
    expected = from_pods(left, target, [pod for pod in pods if pod.ready], current, WITHIN)
    assert from_pods(named(found), target, pods, current, WITHIN) == expected


def test_no_value_is_no_proposal() -> None:
    with pytest.raises(NoMetric):
        from_pods({}, 100, ready(2), 2, WITHIN)


@given(st.integers(0, 10**6), targets, st.integers(1, 30))
def test_a_total_is_shared_out(total: int, target: int, current: int) -> None:
    replicas = from_total(total, target, current, WITHIN)
    inside = 0.9 <= total / (target * current) <= 1.1
    assert replicas == (current if inside else math.ceil(total / target))


def test_a_value_scales_the_pods_that_are_ready() -> None:
    pods = [*ready(2), Pod("starting", Phase.STARTING)]
    assert from_value(3000, 1000, pods, 3, WITHIN) == 6
    assert from_value(3000, 1000, [], 0, WITHIN) == 3


def cpu(levels: list[int], pods: list[Pod], current: int, now_s: float = 1000.0) -> int:
    samples = {f"p{index}": CpuSample(level, now_s, 30) for index, level in enumerate(levels)}
    return from_cpu(samples, 2000, 60, pods, current, WITHIN, now_s)


def test_cpu_is_per_cent_of_the_request() -> None:
    """2000 of 2000 against 60 per cent: 3 x 100 / 60."""
    assert cpu([2000] * 3, ready(3), 3) == 5


def test_cpu_of_a_pod_that_starts_is_ignored() -> None:
    """Its model loads at full load: growing by it would never end."""
    starting = Pod("p1", Phase.STARTING, started_s=990, changed_s=990)
    assert cpu([1200, 2000], [Pod("p0", Phase.READY), starting], 2) == 2


def test_cpu_sampled_before_the_pod_was_ready_is_ignored() -> None:
    fresh = Pod("p1", Phase.READY, started_s=900, changed_s=990)
    old = Pod("p1", Phase.READY, started_s=900, changed_s=960)
    assert cpu([2000, 2000], [Pod("p0", Phase.READY), fresh], 2) == 2
    assert cpu([2000, 2000], [Pod("p0", Phase.READY), old], 2) == 4


def test_a_tolerance_can_differ_by_direction() -> None:
    within = Tolerance(up=0.5, down=0.0)
    assert from_pods(named([140] * 2), 100, ready(2), 2, within) == 2
    assert from_pods(named([49] * 2), 100, ready(2), 2, within) == 1
