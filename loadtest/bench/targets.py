"""The targets, in one table, and whether a run met them. Rates and times are ratios within that run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, le, lt
from statistics import median
from typing import Final

from loadtest.artifacts import MODEL
from loadtest.bench.footprint import Footprint
from loadtest.bench.measure import Found
from loadtest.bench.plan import (
    BARE,
    BUILD,
    FOOTPRINT,
    OURS,
    REFERENCE,
    ROWS,
    TINY,
    Load,
    Model,
    Plan,
    Row,
    Setting,
)
from loadtest.bench.quality import Quality
from loadtest.bench.sample import Sample

GB: Final = 1e9
# The fastest peer in the same setting that loses at most 1 % of perplexity.
BEST: Final = "the best peer"


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens/s of the row `above` over those of the row `below`, under the same load: at least so much, for
    these numbers of streams, or for every load of the model.
    """

    model: str
    above: str
    below: str
    least: float
    streams: tuple[int, ...] = ()


RATES: Final = (
    Rates(MODEL, "grpc", "engine", 0.95, (8,)),
    Rates(MODEL, "grpc", "engine", 0.9, (32,)),
    Rates(MODEL, "grpc", REFERENCE, 5, (1,)),
    Rates(MODEL, "engine", BEST, 1.0),
    Rates(MODEL, "grpc", BEST, 1.3),
    Rates("gpt2", "grpc", REFERENCE, 4),
    Rates("bart-base", "grpc", REFERENCE, 3),
)
MORE_STREAMS: Final = (8, 1, 2.5)  # through Triton, the tokens/s of 8 streams over those of 1: at least
STEP: Final = 1.10  # a decode step of the engine over one of the bare graph: at most
PREFIX: Final = 0.25  # time to the first token with 400 tokens of the prompt cached over without: at most
PERPLEXITY: Final = 1.01  # int8 over fp32: at most
MEMORY_GB: Final = 2.5  # of the server and its processes with all slots full: less than
READY_S: Final = 15  # from start to ready: at most
# Of a build: less than so many seconds, and so many bytes of memory.
BUILDS: Final = {"gpt2": (60, None), "bart-large": (240, 8 * GB)}
_SHORT: Final = {"engine": "in process", "grpc": "Triton gRPC", REFERENCE: "transformers"}
_RELATIONS: Final[Mapping[str, Callable[[float, float], bool]]] = {">=": ge, "<=": le, "<": lt}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value` is the ratio of the medians, None if the run did not measure it; `low` and `high` are the
    extremes over the repeats. `relation` is what the value must be to the target.
    """

    name: str
    relation: str  # ">=", "<=" or "<"
    target: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return _RELATIONS[self.relation](self.value, self.target)


def ratio(
    name: str,
    relation: str,
    target: float,
    above: Mapping[int, float],
    below: Mapping[int, float],
    note: str = "",
) -> Verdict:
    """Of two sets of repeats, by the number of the repeat; not measured if one is empty."""
    if not above or not below:
        return Verdict(name, relation, target, note=note)
    pairs = [above[repeat] / below[repeat] for repeat in above.keys() & below.keys()]
    value = median(above.values()) / median(below.values())
    return Verdict(name, relation, target, value, min(pairs), max(pairs), note)


def samples_of(samples: Sequence[Sample], model: str, row: str, load: Load) -> list[Sample]:
    key = (model, row, load.streams, load.beams)
    return [s for s in samples if (s.model, s.row, s.streams, s.beams) == key]


def rates(samples: Sequence[Sample], model: str, row: str, load: Load) -> dict[int, float]:
    """Output tokens a second, prompts included, by repeat."""
    return {sample.repeat: sample.tokens_per_s for sample in samples_of(samples, model, row, load)}


def eligible(plan: Plan, model: Model, setting: Setting, qualities: Mapping[str, Quality]) -> list[Row]:
    """Peers' rows whose weights were scored, and lost at most 1 % of perplexity."""
    return [
        row
        for row in plan.loaded(model)
        if row.setting is setting
        and row.peer != OURS
        and row.weights in qualities
        and qualities[row.weights].comparable
    ]


def verdicts(plan: Plan, found: Found, qualities: Mapping[str, Quality]) -> list[Verdict]:
    judged: list[Verdict] = []
    for model in plan.models:
        judged += _rates(plan, model, found.samples, qualities)
        if model.name == MODEL:
            judged += _package(plan, model, found)
        if plan.has(model, BUILD):
            judged += _build(model, found)
    return judged


def _rates(
    plan: Plan, model: Model, samples: Sequence[Sample], qualities: Mapping[str, Quality]
) -> Iterator[Verdict]:
    for target in RATES:
        if target.model != model.name.removeprefix(TINY) or not plan.has(model, target.above):
            continue
        if target.below == BEST and not plan.score:
            continue
        for load in model.loads:
            if target.streams and load.streams not in target.streams:
                continue
            above = rates(samples, model.name, target.above, load)
            below, note = rates(samples, model.name, target.below, load), ""
            if target.below == BEST:
                setting = next(row.setting for row in ROWS if row.name == target.above)
                peers = eligible(plan, model, setting, qualities)
                below, note = _fastest(peers, samples, model, load)
            pair = f"{_SHORT[target.above]} / {_SHORT.get(target.below, BEST)}"
            name = f"tokens/s, {model.name}, {load} at once: {pair}"
            yield ratio(name, ">=", target.least, above, below, note)


def _fastest(
    peers: Sequence[Row], samples: Sequence[Sample], model: Model, load: Load
) -> tuple[dict[int, float], str]:
    """By its median under this load."""
    found = [(got, row.title) for row in peers if (got := rates(samples, model.name, row.name, load))]
    if not found:
        return {}, "no peer of equal quality was measured"
    got, title = max(found, key=lambda one: median(one[0].values()))
    return got, f"the best: {title}"


def _package(plan: Plan, model: Model, found: Found) -> Iterator[Verdict]:
    more, one, least = MORE_STREAMS
    if plan.has(model, "grpc") and {more, one} <= {load.streams for load in model.loads}:
        many, single = (rates(found.samples, model.name, "grpc", Load(n)) for n in (more, one))
        name = f"tokens/s, {model.name}, Triton gRPC: {more} streams / {one}"
        yield ratio(name, ">=", least, many, single)
    if plan.has(model, BARE):
        yield from _steps(found)
    if quality := found.manifests.get(model.name, {}).get("quality"):
        pair = quality["perplexity"], quality["reference_perplexity"]
        note = f"{pair[0]:.2f} against {pair[1]:.2f}"
        yield Verdict("perplexity: int8 / fp32", "<=", PERPLEXITY, pair[0] / pair[1], note=note)
    if plan.has(model, FOOTPRINT) and found.footprint is not None:
        yield from _footprint(found.footprint)


def _steps(found: Found) -> Iterator[Verdict]:
    for streams in sorted({step.streams for step in found.steps}):
        steps = [step for step in found.steps if step.streams == streams]
        engine, model, bare = (
            1e3 * median(getattr(step, name) for step in steps) for name in ("engine_s", "model_s", "bare_s")
        )
        yield ratio(
            f"decode step, batch {streams}: engine / bare graph",
            "<=",
            STEP,
            {step.repeat: step.engine_s for step in steps},
            {step.repeat: step.bare_s for step in steps},
            f"{engine:.2f} ms, {model:.2f} of them in the model; bare {bare:.2f}",
        )


def _footprint(found: Footprint) -> Iterator[Verdict]:
    cold = dict(enumerate(pair.cold_s for pair in found.prefix))
    cached = dict(enumerate(pair.cached_s for pair in found.prefix))
    note = f"{1e3 * median(cached.values()):.0f} ms against {1e3 * median(cold.values()):.0f}"
    name = "time to first token, 400 tokens shared: cached / cold"
    yield ratio(name, "<=", PREFIX, cached, cold, note)
    filled, idle = found.filled, found.idle
    shared = f"{filled.rss / GB:.2f} if shared pages count for each process"
    note = f"{filled.processes} processes; idle {idle.pss / GB:.2f}; {shared}"
    name = "memory of the server tree with all slots full, GB"
    yield Verdict(name, "<", MEMORY_GB, filled.pss / GB, note=note)
    yield Verdict("time from start to ready, s", "<=", READY_S, found.ready_s)


def _build(model: Model, found: Found) -> Iterator[Verdict]:
    seconds, peak_bytes = BUILDS.get(model.name.removeprefix(TINY), (None, None))
    built = next((build for build in found.builds if build.model == model.name), None)
    if seconds is not None:
        note = f"memory {built.peak_bytes / GB:.2f} GB" if built else ""
        yield Verdict(f"build of {model.name}, s", "<", seconds, built.seconds if built else None, note=note)
    if peak_bytes is not None:
        peak = built.peak_bytes / GB if built else None
        yield Verdict(f"build of {model.name}, peak memory, GB", "<", peak_bytes / GB, peak)
