"""The other tool: what it is told, and what it found.

Its template endpoint posts any JSON to any path and reads text out of each event of the answer. Traps of
0.13: a template on the command line loses its last brace, so it goes by file, whose path may hold no
symbolic link; a tokenizer in a folder needs a tokenizer_config.json that names its class, and
HF_HUB_OFFLINE unset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from loadtest.crosscheck.figures import Timing
from loadtest.errors import BenchError
from loadtest.traffic.arrivals import Closed
from loadtest.traffic.profile import Profile
from loadtest.traffic.prompts import PromptWriter
from loadtest.traffic.schedule import Planned, schedule

TEMPLATE = (
    '{"text_input": {{ text|tojson }}, "max_tokens": {{ max_tokens }}, "temperature": 0.0,'
    ' "ignore_eos": true, "stream": true}\n'
)
RECORDS, SUMMARY = "profile_export.jsonl", "profile_export_aiperf.json"
# Of a closed loop: far more than two cores answer. Prompts that came twice would be in the prefix cache.
_CLOSED_PER_S = 20
_GRACE_S = 120


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of one run, in a folder of their own."""

    folder: Path
    template: Path
    prompts: Path


def write_inputs(profile: Profile, writer: PromptWriter, folder: Path) -> Inputs:
    """The requests of our schedule, in its order; in an open loop with their times."""
    folder = folder.resolve()  # aiperf takes no path with a symbolic link in it
    folder.mkdir(parents=True)
    inputs = Inputs(folder, folder / "template.json", folder / "prompts.jsonl")
    inputs.template.write_text(TEMPLATE, "utf-8")
    with inputs.prompts.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows(profile, writer))
    return inputs


def rows(profile: Profile, writer: PromptWriter) -> Iterator[dict[str, Any]]:
    """aiperf's single_turn format; timestamps are milliseconds since the start of the run."""
    return (_row(planned, writer) for planned in _requests(profile))


def _requests(profile: Profile) -> Iterable[Planned]:
    if isinstance(profile.arrivals, Closed):
        return islice(schedule(profile), _closed_prompts(profile))
    return schedule(profile)


def _closed_prompts(profile: Profile) -> int:
    return round(_CLOSED_PER_S * profile.total_s)


def _row(planned: Planned, writer: PromptWriter) -> dict[str, Any]:
    row: dict[str, Any] = {"text": writer.write(planned), "output_length": planned.tokens_out}
    return row if planned.at_s is None else {"timestamp": planned.at_s * 1000, **row}


def tokenizer_folder(engine: Path, folder: Path) -> Path:
    """The engine's tokenizer as transformers opens it; aiperf counts output tokens with it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes((engine / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n')
    return folder


def command(
    program: Path, url: str, model: str, profile: Profile, inputs: Inputs, tokenizer: Path
) -> list[str]:
    """One run, against the HTTP server at `url`: one worker and, as our HTTP users do it, a connection for
    each request."""
    options = {
        "--model": model,
        "--url": url,
        "--endpoint": f"/v2/models/{model}/generate_stream",
        "--endpoint-type": "template",
        "--input-file": f"{inputs.prompts}",
        "--custom-dataset-type": "single_turn",
        "--tokenizer": f"{tokenizer}",
        "--connection-reuse-strategy": "never",
        "--workers-max": "1",
        "--record-processor-service-count": "1",
        "--ui": "none",
        "--artifact-dir": f"{inputs.folder}",
    } | _arrivals(profile)
    words = [word for option in options.items() for word in option]
    for extra in (f"payload_template:{inputs.template}", "response_field:text_output"):
        words += ["--extra-inputs", extra]
    flags = ["--streaming", "--no-gpu-telemetry", "--no-server-metrics"]
    if not isinstance(profile.arrivals, Closed):
        flags.append("--fixed-schedule")
    return [str(program), "profile", *words, *flags]


def _arrivals(profile: Profile) -> dict[str, str]:
    """A run that ends by time: what is open then is awaited. An open loop has its end in the timestamps."""
    if not isinstance(profile.arrivals, Closed):
        return {}
    return {
        "--concurrency": f"{profile.arrivals.users}",
        "--benchmark-duration": f"{profile.duration_s:g}",
        "--benchmark-grace-period": f"{_GRACE_S}",
        "--dataset-sampling-strategy": "sequential",
    }


def environment(ours: Mapping[str, str], home: Path) -> dict[str, str]:
    """`home` takes what aiperf and transformers would write into the user's."""
    kept = {name: value for name, value in ours.items() if name != "HF_HUB_OFFLINE"}
    return kept | {"HOME": str(home)}


def check_prompts(requests: int, profile: Profile) -> None:
    """BenchError when the prompts of a closed loop ran out: aiperf then begins with the first again."""
    if isinstance(profile.arrivals, Closed) and requests > _closed_prompts(profile):
        raise BenchError(f"aiperf: {requests} requests, and only {_closed_prompts(profile)} prompts")


def timings_of(lines: Iterable[str]) -> list[Timing]:
    """From aiperf's records, those of its warm-up left out. BenchError when a request failed."""
    records = [json.loads(line) for line in lines]
    measured = [r for r in records if r["metadata"]["benchmark_phase"] == "profiling"]
    failed = [r for r in measured if r.get("error") or r["metadata"]["was_cancelled"]]
    if failed:
        raise BenchError(
            f"aiperf: {len(failed)} of {len(measured)} requests failed: {failed[0].get('error')}"
        )
    return [_timing(record) for record in measured]


def _timing(record: dict[str, Any]) -> Timing:
    metrics, sent_s = record["metrics"], record["metadata"]["request_start_ns"] / 1e9
    return Timing(
        sent_s=sent_s,
        ttft_s=_ms(metrics, "time_to_first_token"),
        end_s=sent_s + _ms(metrics, "request_latency"),
        tokens=int(metrics["output_sequence_length"]["value"]),
    )


def _ms(metrics: dict[str, Any], name: str) -> float:
    assert metrics[name]["unit"] == "ms", f"{name} of aiperf {metrics[name]['unit']}"
    return float(metrics[name]["value"]) / 1000


def headline(summary: dict[str, Any]) -> Sequence[float]:
    """What aiperf itself prints, in the order and units of Figures."""
    return (
        summary["time_to_first_token"]["p50"] / 1000,
        summary["inter_token_latency"]["avg"] / 1000,
        summary["request_latency"]["p50"] / 1000,
        summary["output_token_throughput"]["avg"],
    )
