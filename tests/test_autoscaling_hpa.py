"""Limits, policies and stabilisation of the HPA, over whole histories; KEDA's first and last replica."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.autoscaling.behavior import Policy, Rules, Select, Unit
from k8s.autoscaling.hpa import SYNC_PERIOD_S, Controller, Limits
from k8s.autoscaling.keda import Activity, Operator

policies = st.builds(
    Policy, st.sampled_from(Unit), st.integers(1, 100), st.sampled_from([15, 30, 60, 120, 300])
)
rules = st.builds(
    Rules,
    st.sampled_from([0, 30, 60, 300]),
    st.lists(policies, min_size=1, max_size=3).map(tuple),
    st.sampled_from(Select),
)
histories = st.lists(st.one_of(st.none(), st.integers(0, 40)), min_size=1, max_size=60)
FREE = Rules(0, (Policy(Unit.PODS, 1000, 15),))


def run(limits: Limits, proposals: list[int | None], current: int = 5) -> list[int]:
    """Replicas before each decision, and after the last."""
    controller, replicas = Controller(limits), [current]
    for turn, proposal in enumerate(proposals):
        replicas.append(controller.decide(turn * SYNC_PERIOD_S, replicas[-1], [proposal]))
    return replicas


@given(rules, rules, histories)
def test_the_limits_hold_whatever_is_proposed(up: Rules, down: Rules, proposals: list[int | None]) -> None:
    assert all(2 <= one <= 12 for one in run(Limits(2, 12, up, down), proposals))


@given(rules, histories)
def test_no_period_sees_more_than_its_policies_allow(up: Rules, proposals: list[int | None]) -> None:
    replicas = run(Limits(1, 40, up, FREE), proposals)
    choose = min if up.select is Select.MIN else max
    for turn in range(1, len(replicas)):
        if replicas[turn] > replicas[turn - 1]:
            assert up.select is not Select.DISABLED
            assert replicas[turn] <= choose(_most(replicas, turn, policy) for policy in up.policies)


def _most(replicas: list[int], turn: int, policy: Policy) -> int:
    """What the policy makes of the replicas one period ago."""
    before = replicas[max(0, turn - int(policy.period_s / SYNC_PERIOD_S))]
    if policy.unit is Unit.PODS:
        return before + policy.value
    return math.ceil(before * (1 + policy.value / 100))


@given(st.sampled_from([30, 60, 300]), histories)
def test_nothing_shrinks_below_what_was_wanted_within_the_window(
    window: int, proposals: list[int | None]
) -> None:
    replicas = run(Limits(1, 40, FREE, Rules(window, FREE.policies)), proposals)
    turns = window // int(SYNC_PERIOD_S)
    for turn, (before, after) in enumerate(pairwise(replicas)):
        recent = [one for one in proposals[max(0, turn - turns + 1) : turn + 1] if one is not None]
        if after < before:
            assert after == max(1, *recent)


@given(st.sampled_from([30, 60, 300]), histories)
def test_nothing_grows_beyond_what_was_wanted_throughout_the_window(
    window: int, proposals: list[int | None]
) -> None:
    replicas = run(Limits(1, 40, Rules(window, FREE.policies), FREE), proposals)
    turns = window // int(SYNC_PERIOD_S)
    for turn, (before, after) in enumerate(pairwise(replicas)):
        recent = [one for one in proposals[max(0, turn - turns + 1) : turn + 1] if one is not None]
        if after > before:
            assert after == min(recent)


@given(st.integers(1, 20), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_of_several_metrics_the_largest_decides(current: int, proposals: list[int]) -> None:
    decided = Controller(Limits(1, 20, FREE, FREE)).decide(0, current, proposals)
    assert decided == min(20, max(1, *proposals))


@pytest.mark.parametrize(("known", "replicas"), [(3, 5), (8, 8), (None, 5)])
def test_a_metric_without_a_value_lets_others_grow_and_none_shrink(known: int | None, replicas: int) -> None:
    assert Controller(Limits(1, 20, FREE, FREE)).decide(0, 5, [known, None]) == replicas


def test_an_hpa_leaves_a_deployment_at_zero_alone() -> None:
    assert Controller(Limits(1, 20)).decide(0, 0, [5]) == 0


def test_the_default_rules_double_or_add_four_and_wait_five_minutes_to_shrink() -> None:
    assert run(Limits(1, 100), [100] * 4, current=1) == [1, 5, 10, 20, 40]
    shrinking = run(Limits(1, 100), [10, *[1] * 21], current=10)
    assert shrinking.index(1) == 300 / SYNC_PERIOD_S + 1


def test_one_replica_a_minute_leaves() -> None:
    down = Rules(0, (Policy(Unit.PODS, 1, 60),))
    assert run(Limits(1, 10, FREE, down), [1] * 9, current=4) == [4, 3, 3, 3, 3, 2, 2, 2, 2, 1]


def test_keda_starts_the_first_replica_and_stops_the_last_after_the_cooldown() -> None:
    operator = Operator(Activity(minimum=0, polling_s=30, cooldown_s=300))
    assert operator.poll(0, 0, [1000], [1000]) == 0, "at the activation threshold is not above it"
    assert operator.poll(15, 0, [9000], [1000]) == 0, "not polled yet"
    assert operator.poll(30, 0, [9000], [1000]) == 1
    assert operator.poll(300, 2, [0], [1000]) == 2, "within the cooldown"
    assert operator.poll(331, 2, [0], [1000]) == 0


def test_keda_keeps_a_minimum_and_leaves_the_rest_to_the_hpa() -> None:
    operator = Operator(Activity(minimum=2, polling_s=30, cooldown_s=60))
    assert operator.poll(0, 1, [0], [0]) == 2
    assert operator.poll(1000, 7, [0], [0]) == 7


def test_keda_rests_at_the_idle_replicas() -> None:
    operator = Operator(Activity(minimum=3, polling_s=30, cooldown_s=60, idle=1))
    assert operator.poll(0, 1, [5], [0]) == 3
    assert operator.poll(30, 3, [0], [0]) == 3
    assert operator.poll(90, 3, [0], [0]) == 1
