"""A real Prometheus scrapes live tritonservers: every panel and every part of an alert has data."""

from __future__ import annotations

import math
import re
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from promql_parser import BinaryExpr, Call, ParenExpr, parse

from tests.k8s.charts import NAMESPACE
from tests.k8s.dashboard_scene import GONE_POD, MODELS, PODS, Scene, staged
from tests.k8s.metric_names import ALERTS, ELSEWHERE, OF_GPUS, OF_KUBELET, TRITON
from tests.k8s.panels import Target, read, targets
from tests.k8s.scaling_queries import queries
from tests.k8s.stack import JOB, Stack
from tests.live.serving import eventually

pytestmark = pytest.mark.e2e
BOARD = read()
TARGETS = list(targets(BOARD))
INTERVAL = "10s"  # four scrapes and more, as Grafana's rate interval has
DATA_S = 240.0


def needs(expression: str, names: frozenset[str]) -> bool:
    return any(re.search(rf"\b{name}\b", expression) for name in names)


HERE = [target for target in TARGETS if not needs(target.expr, ELSEWHERE)]


@pytest.fixture(scope="module")
def scene(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with staged(tools, tmp_path_factory.mktemp("dashboard")) as found:
        yield found


@pytest.fixture(scope="module")
def stack(scene: Scene) -> Stack:
    return scene.stack


def panel(name: str) -> Target:
    (found,) = [target for target in TARGETS if target.panel == name]
    return found


def values(stack: Stack, name: str, **chosen: str) -> dict[tuple[str, ...], float]:
    """The values of a panel, by the labels that its legend names."""
    target = panel(name)
    labels = re.findall(r"{{(\w+)}}", target.legend)
    series = stack.query(target.asked(BOARD, INTERVAL, **chosen))
    return {tuple(one["metric"][label] for label in labels): float(one["value"][1]) for one in series}


def legends(target: Target, series: list[dict[str, Any]]) -> list[str]:
    return [_named(target.legend, one["metric"]) for one in series]


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.panel)
def test_a_panel_has_numbers_and_tells_its_lines_apart(stack: Stack, target: Target) -> None:
    def numbers() -> list[dict[str, Any]]:
        series = stack.query(target.asked(BOARD, INTERVAL))
        return [] if any(math.isnan(float(one["value"][1])) for one in series) else series

    assert eventually(lambda: bool(numbers()), DATA_S), target.asked(BOARD, INTERVAL)
    series = numbers()
    names = legends(target, series) if target.legend != "{{le}}" else [one["metric"]["le"] for one in series]
    assert len(set(names)) == len(names)


def test_only_panels_of_gpus_and_of_the_kubelet_have_no_data_here_and_prometheus_accepts_their_queries(
    stack: Stack,
) -> None:
    rest = [target for target in TARGETS if target not in HERE]
    assert {target.panel.partition(":")[0] for target in rest} == {"CPU and memory", "GPU"}
    assert {t.panel for t in rest if t.panel.startswith("CPU")} == {
        "CPU and memory: CPU of the container A",
        "CPU and memory: Memory of the container A",
        "CPU and memory: Memory of the container B",
    }
    for target in rest:
        assert stack.query(target.asked(BOARD, INTERVAL)) == []


def test_replicas_are_counted_and_the_one_that_is_gone_is_down(stack: Stack) -> None:
    def found() -> tuple[object, ...]:
        up = {pod: value for (pod, _), value in values(stack, "Replicas: Up A").items()}
        loaded = values(stack, "Replicas: Models loaded A")
        models = {(pod, model): value for (pod, _, model), value in loaded.items()}
        return values(stack, "Now: Replicas A"), values(stack, "Now: Replicas B"), up, models

    up = {**dict.fromkeys(PODS, 1), GONE_POD: 0}
    models = {(pod, f"{model}_engine"): 1 for pod in PODS for model in MODELS}
    # A scrape may be lost where the processor is busy; the next one is not.
    assert eventually(lambda: found() == ({(): 2}, {(): 3}, up, models), DATA_S), found()


@pytest.mark.parametrize(
    "name", ["Traffic: Completed requests by model A", "Traffic: Tokens a second by model A"]
)
def test_the_pods_add_up_for_each_model(stack: Stack, name: str) -> None:
    every = panel(name).asked(BOARD, INTERVAL)
    of_pods = " + ".join(f"({panel(name).asked(BOARD, INTERVAL, pod=pod)})" for pod in PODS)
    series = stack.query(f"(({of_pods}) / ({every}))")
    assert {one["metric"]["model"] for one in series} == {f"{model}_engine" for model in MODELS}
    assert all(float(one["value"][1]) == pytest.approx(1, abs=1e-9) for one in series)


def test_a_chosen_model_is_the_only_one(stack: Stack) -> None:
    assert set(values(stack, "Latency: Time to the first token A", model="alpha")) == {("alpha_engine",)}
    assert set(values(stack, "Latency: Time to the first token A")) == {("alpha_engine",), ("beta_engine",)}


def test_a_refused_request_counts_as_refused_and_nothing_else(stack: Stack) -> None:
    refused = values(stack, "Traffic: What becomes of requests B")
    assert refused["invalid_arg",] > 0
    assert sum(refused.values()) == refused["invalid_arg",]
    assert values(stack, "Traffic: What becomes of requests C") == {(): 0}


def test_shares_are_between_0_and_1(stack: Stack) -> None:
    hits = values(stack, "Traffic: Prompt tokens from the prefix cache A")
    failed = values(stack, "Refusals and faults: Failed by the server's fault A")
    assert hits.keys() == failed.keys() == {(f"{model}_engine",) for model in MODELS}
    assert all(0 < hit < 1 for hit in hits.values())
    assert set(failed.values()) == {0}


def test_the_heat_map_has_every_bucket(stack: Stack) -> None:
    (target,) = [t for t in TARGETS if t.legend == "{{le}}" and "inter_response" in t.expr]
    found = {one["metric"]["le"] for one in stack.query(target.asked(BOARD, INTERVAL))}
    asked = stack.query("count by (le) (halimede_inter_response_latency_seconds_bucket)")
    assert found == {one["metric"]["le"] for one in asked}
    assert {"0.25", "1", "+Inf"} <= found


def test_triton_has_the_metrics_that_we_think(stack: Stack) -> None:
    found = {one["metric"]["__name__"] for one in stack.query(f'count by (__name__) ({{job="{JOB}"}})')}
    assert {name for name in found if name.startswith("nv_")} == TRITON


def parts(expression: Any) -> Iterator[str]:
    """The sides of comparisons, of `and`, `or` and `unless`, and what may not be absent."""
    if isinstance(expression, ParenExpr):
        yield from parts(expression.expr)
    elif isinstance(expression, BinaryExpr) and str(expression.op) in _BETWEEN:
        yield from parts(expression.lhs)
        yield from parts(expression.rhs)
    elif isinstance(expression, Call) and expression.func.name == "absent":
        yield from parts(expression.args[0])
    else:
        yield expression.prettify()


_BETWEEN = {">", "<", ">=", "<=", "==", "!=", "and", "or", "unless"}


def has_data(stack: Stack, expression: str) -> bool:
    return bool(stack.query(expression))


def test_the_parts_of_an_expression() -> None:
    text = "absent(up) or (a > 4 unless a < 0.8 * (a offset 10m)) and b / (c > 0) == 1"
    assert list(parts(parse(text))) == ["up", "a", "4", "a", "0.8 * (a offset 10m)", "b / (c > 0)", "1"]


@pytest.mark.parametrize("name", ALERTS)
def test_every_part_of_an_alert_has_data(stack: Stack, name: str) -> None:
    (rule,) = [rule for rule in stack.rules() if rule["name"] == name]
    assert rule["health"] == "ok", rule.get("lastError")
    # The clock here is too young for what was hours ago.
    found = list(parts(parse(re.sub(r" offset \w+", "", rule["query"]))))
    here = [part for part in found if not needs(part, ELSEWHERE)]
    for part in here:
        assert eventually(partial(has_data, stack, part), DATA_S), part
    away = [part for part in found if part not in here]
    assert bool(away) == (name in {"HalimedeMemoryGrowing", "HalimedeGpuHot", "HalimedeGpuMemoryHigh"})
    assert all(needs(part, OF_GPUS if "Gpu" in name else OF_KUBELET) for part in away)


@pytest.mark.parametrize("mode", ["hpa", "keda"])
def test_every_query_of_the_charts_autoscalers_has_a_value(stack: Stack, mode: str) -> None:
    found = queries(mode)
    assert len(found) == 4
    for name, query in found.items():
        assert eventually(partial(has_data, stack, query), DATA_S), query
        series = stack.query(query)
        # The HPA asks about each Pod, KEDA about all of them.
        assert sorted(one["metric"].get("pod", "") for one in series) == (
            list(PODS) if mode == "hpa" else [""]
        )
        numbers = [float(one["value"][1]) for one in series]
        assert all(number > 0 if "ttft" in name else number >= 0 for number in numbers), (name, numbers)
        assert stack.query(query.replace(f'namespace="{NAMESPACE}"', 'namespace="elsewhere"')) == []


def test_prometheus_3_takes_the_page_as_well(stack: Stack) -> None:
    """It refuses a page whose content type does not say which format it has; 2.42 does not."""
    (address,) = {one["metric"]["instance"] for one in stack.query(f'up{{pod="{PODS[0]}"}}')}
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        assert answer.headers.get_content_type() == "text/plain"


def test_an_unloaded_model_is_shown_and_raises_its_alert(scene: Scene) -> None:
    """This test must be the last one: the model is not loaded again."""
    scene.unload(PODS[1], "beta")

    def unloaded() -> set[tuple[str, str]]:
        loaded = values(scene.stack, "Replicas: Models loaded A")
        return {(pod, model) for (pod, _, model), value in loaded.items() if not value}

    assert eventually(lambda: unloaded() == {(PODS[1], "beta_engine")}, DATA_S)
    unready = f'alertname="HalimedeModelNotReady",pod="{PODS[1]}",model="beta_engine"'
    fires = f'ALERTS{{alertstate="firing",{unready}}}'
    assert eventually(lambda: bool(scene.stack.query(fires)), DATA_S)
