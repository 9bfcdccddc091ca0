"""Real faults of live servers become alerts at a webhook, by the chart's rules on a faster clock.

One scene for all, from well over ill to dead; the tests run in the order of this file. Faults that take long
to be told of begin together, in `lasting`, and go on behind the others.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from halimede import Client
from loadtest.ports import held_ports
from tests.k8s.alert_scene import MAIN, OTHER, QUEUE, SHARED, SLOTS, Scene, staged
from tests.k8s.charts import NAMESPACE
from tests.k8s.faults import ONCE, crowd, halt_at_start, halted, halting, kill, step_pid, triton_pid
from tests.k8s.metric_names import ALERTS
from tests.live.serving import Server, eventually, started

pytestmark = pytest.mark.e2e

OVERLOAD = (
    "HalimedeTtftBurnFast",
    "HalimedeTtftBurnSlow",
    "HalimedeQueueGrowing",
    "HalimedeRejections",
    "HalimedeKvCachePressure",
)
FAULTS = {
    "HalimedeModelNotReady": "a model is unloaded",
    "HalimedeGapBurnFast": "tokens of streams wait for each other too long (`stream_interval`)",
    "HalimedeGapBurnSlow": "the same",
    **dict.fromkeys(OVERLOAD, "more requests than fit into the engine's slots and queue, all of them long"),
    "HalimedeScrapesLost": "a tritonserver is halted now and then",
    "HalimedeStalled": "an engine's process is halted",
    "HalimedeTraceSpansDropped": "the collector of traces is gone",
    "HalimedePrefixCacheCollapse": "prompts that began alike begin to differ",
    "HalimedeReplicaStuck": "a tritonserver is halted before it has loaded its models",
    "HalimedeErrorRatio": "a tokenizer's process is killed",
    "HalimedeReplicaDown": "one of several servers is killed",
    "HalimedeServerDown": "all servers are killed",
}
NOT_PROVOKED = {
    "HalimedeMemoryGrowing": "takes cAdvisor's metrics of a container, or most of this machine's memory",
    "HalimedeGpuMemoryHigh": "takes a GPU",
    "HalimedeGpuHot": "takes a GPU and the DCGM exporter",
}
# 466 tokens of 512, so that a slot in use is nearly full.
LONG = "The night was long. " * 93
LONG_TOKENS = 40


@pytest.fixture(scope="module")
def scene(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with staged(tools, tmp_path_factory.mktemp("live")) as found:
        yield found


@pytest.fixture(scope="module")
def lasting(scene: Scene) -> Iterator[tuple[Server, int]]:
    """The collector is gone and prompts differ. A third server hangs: yields it and its process."""
    scene.collector.close()
    scene.prompts.vary()
    log = scene.folder / "third.log"
    with (
        held_ports(1) as (port,),  # Prometheus knows it before the server is ready
        started(scene.other.repository, log, "--metrics-port", str(port)) as third,
    ):
        pid = halt_at_start(third)
        scene.stack.watch(scene.addresses | {"third": f"127.0.0.1:{port}"})
        try:
            yield third, pid
        finally:
            if third.running:
                os.kill(pid, signal.SIGCONT)


def test_every_alert_is_provoked_or_it_is_said_why_not() -> None:
    assert FAULTS.keys() | NOT_PROVOKED.keys() == set(ALERTS)
    assert not FAULTS.keys() & NOT_PROVOKED.keys()


def test_no_alert_fires_on_healthy_servers(scene: Scene) -> None:
    scene.finds('count_over_time(up{pod="main"}[5m]) >= 40')
    found = scene.stack.rules()
    assert {rule["name"] for rule in found} > set(ALERTS)
    assert [rule for rule in found if rule["health"] != "ok"] == []
    assert scene.webhook.names == frozenset()


def test_an_unloaded_model_is_not_ready_and_a_loaded_one_is(scene: Scene, lasting: object) -> None:
    with Client(scene.other.address.grpc, model=OTHER, retry=ONCE) as client:
        client.unload()
        notice = scene.told("HalimedeModelNotReady", pod="other")
        assert notice.labels["model"] == f"{OTHER}_engine"
        client.load()
    scene.over("HalimedeModelNotReady")


def test_responses_that_wait_for_many_tokens_burn_the_budget_of_gaps(scene: Scene, lasting: object) -> None:
    with crowd(scene.main, MAIN, SLOTS - 1, lambda: SHARED, 200, stream=True):
        for name in ("HalimedeGapBurnFast", "HalimedeGapBurnSlow"):
            assert scene.told(name).labels["model"] == f"{MAIN}_engine"
        for name in ("HalimedeQueueGrowing", "HalimedeRejections", "HalimedeStalled"):
            assert not scene.fires(name)


def test_too_many_long_requests_raise_the_alerts_of_queue_refusals_latency_and_cache(
    scene: Scene, lasting: object
) -> None:
    with crowd(scene.main, MAIN, SLOTS + QUEUE + 6, lambda: LONG, LONG_TOKENS) as endings:
        for name in OVERLOAD:
            assert scene.told(name).labels["model"] == f"{MAIN}_engine"
        assert eventually(lambda: "done" in endings)
        assert {"done", "Unavailable"} == set(endings)
        assert not scene.fires("HalimedeErrorRatio")
        assert not scene.fires("HalimedeStalled")


def test_a_server_that_answers_now_and_then_loses_scrapes(scene: Scene, lasting: object) -> None:
    with halting(triton_pid(scene.other), 2.2, 1.5):
        scene.told("HalimedeScrapesLost", pod="other")


def test_spans_that_no_collector_takes_raise_an_alert(scene: Scene, lasting: object) -> None:
    assert scene.told("HalimedeTraceSpansDropped").labels["model"] == f"{OTHER}_engine"


def test_prompts_that_no_longer_share_a_prefix_raise_an_alert(scene: Scene, lasting: object) -> None:
    scene.told("HalimedePrefixCacheCollapse", model=f"{OTHER}_engine")


def test_a_server_that_hangs_at_its_start_is_stuck_and_not_down(
    scene: Scene, lasting: tuple[Server, int]
) -> None:
    third, pid = lasting
    scene.told("HalimedeReplicaStuck", pod="third")
    assert not scene.fires("HalimedeReplicaDown", pod="third")
    os.kill(pid, signal.SIGCONT)
    third.wait_ready()
    scene.over("HalimedeReplicaStuck")


def test_a_halted_engine_is_stalled_until_it_goes_on(scene: Scene, lasting: tuple[Server, int]) -> None:
    third, _ = lasting
    with crowd(third, OTHER, 2, lambda: SHARED, 3000):
        scene.finds('sum(halimede_num_requests_running{pod="third"}) == 2')
        with halted(step_pid(third, f"{OTHER}_engine")):
            scene.told("HalimedeStalled", pod="third", model=f"{OTHER}_engine")
    scene.over("HalimedeStalled")


def test_alerts_of_the_overload_end(scene: Scene, lasting: object) -> None:
    for name in (
        *("HalimedeQueueGrowing", "HalimedeRejections", "HalimedeKvCachePressure"),
        *("HalimedeGapBurnFast", "HalimedeTtftBurnFast", "HalimedeScrapesLost"),
    ):
        scene.over(name)


def test_a_step_that_dies_makes_errors(scene: Scene, lasting: object) -> None:
    os.kill(step_pid(scene.main, f"{MAIN}_tokenizer"), signal.SIGKILL)
    assert scene.told("HalimedeErrorRatio").labels["model"] == f"{MAIN}_engine"


def test_a_replica_that_is_killed_is_down_and_the_others_are_not(
    scene: Scene, lasting: tuple[Server, int]
) -> None:
    kill(lasting[0])
    scene.told("HalimedeReplicaDown", pod="third")
    assert not scene.fires("HalimedeServerDown")


def test_killing_the_last_servers_raises_a_critical_alert(scene: Scene, lasting: object) -> None:
    kill(scene.main)
    kill(scene.other)
    notice = scene.told("HalimedeServerDown")
    assert notice.labels["severity"] == "critical"
    assert notice.labels["namespace"] == NAMESPACE


def test_nothing_fired_but_what_was_provoked(scene: Scene) -> None:
    assert scene.webhook.names == FAULTS.keys()
