"""The same load by an independent tool, aiperf 0.13, to compare with a run of `make load`.

It writes a profile, gives aiperf the profile's requests, and computes four figures from aiperf's report. With
--compare it computes the same figures of a run of ours.

aiperf posts JSON from a template to Triton's generate_stream and reads the text of each event. Three traps of
0.13: a template on the command line loses its last brace, so it is a file, whose path may hold no symbolic
link; a folder with a tokenizer needs a tokenizer_config.json that names its class; HF_HUB_OFFLINE must be
unset.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from loadtest.artifacts import MODEL, ROOT, engine_of
from loadtest.errors import BenchError, exit_code
from loadtest.measure.record import decode_lines
from loadtest.options import decimal, positive
from loadtest.traffic.profile import Profile, profile_of
from loadtest.traffic.prompts import PromptWriter, TokenizerFile
from loadtest.traffic.schedule import schedule

RECORDS = "profile_export.jsonl"
TEMPLATE = (
    '{"text_input": {{ text|tojson }}, "max_tokens": {{ max_tokens }}, "temperature": 0.0,'
    ' "ignore_eos": true, "stream": true}\n'
)
_PROFILE = """name = "aiperf"
duration_s = {duration}
warmup_s = 0

[arrivals]
kind = "poisson"
rate_per_s = {rate}

[[mix]]
name = "aiperf"
protocol = "http"
task = "complete"
model = "{model}"
prompt_tokens = {{ constant = {tokens_in} }}
output_tokens = {{ constant = {tokens_out} }}
temperature = 0.0
ignore_eos = true
"""
_EXAMPLES = f"""examples:
  python -m venv .cache/aiperf && .cache/aiperf/bin/pip install aiperf==0.13.0                 1.2 GB
  python -m loadtest.aiperf --rate 1 --duration 60 --out runs/aiperf
  python -m loadtest.load --profile runs/aiperf/profile.toml --out runs/ours
  python -m loadtest.aiperf --out runs/aiperf --compare runs/ours                only reads both reports

aiperf takes as much of a processor as a small server does: run it on another machine, or on cores of its own
(taskset). Exit codes: 0 measured, 1 something failed, 2 the command is wrong. Tokenizer: {MODEL}'s, if built.
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """One answered request. Seconds: `sent_s` and `end_s` by the tool's own clock, `ttft_s` since `sent_s`.
    `end_s` is the last chunk with text; `tokens` is the number of output tokens, at least 2.
    """

    sent_s: float
    ttft_s: float
    end_s: float
    tokens: int

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.sent_s

    @property
    def itl_s(self) -> float:
        """The mean of the request: the time after its first token by the number of tokens after the first."""
        return (self.e2e_s - self.ttft_s) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. `itl_mean_s` is the mean over requests of a request's mean; `tokens_per_s` counts from the
    first request to the last chunk.
    """

    ttft_p50_s: float
    itl_mean_s: float
    e2e_p50_s: float
    tokens_per_s: float


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m loadtest.aiperf",
        description="Put a load on a server by aiperf, and compare its figures with a run of `make load`.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="aiperf's files, and profile.toml")
    add("--compare", type=Path, metavar="RUN", help="the folder of a run of `make load`")
    rate = decimal("above 0, at most 100", lambda rate: 0 < rate <= 100)
    add("--rate", type=rate, metavar="R", help="run aiperf: so many requests/s, Poisson arrivals")
    add("--duration", type=positive, default=20, metavar="S", help="seconds; default: %(default)s")
    add("--tokens-in", type=positive, default=128, metavar="N", help="default: %(default)s")
    add("--tokens-out", type=positive, default=64, metavar="N", help="default: %(default)s")
    add("--url", default="http://127.0.0.1:8000", help="HTTP; default: %(default)s")
    add("--model", default=MODEL, help="default: %(default)s")
    add("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, if the model was not built here")
    program = ROOT / ".cache" / "aiperf" / "bin" / "aiperf"
    add("--program", type=Path, default=program, metavar="FILE", help="default: .cache/aiperf/bin/aiperf")
    return made


def _run(options: argparse.Namespace) -> int:
    # aiperf takes no path with a symbolic link in it.
    folder = options.out.resolve()
    try:
        if options.rate:
            _measure(options, folder)
        with (folder / RECORDS).open(encoding="utf-8") as lines:
            found = {"aiperf": figures_of("aiperf", timings_of(lines))}
        if options.compare:
            found["loadtest.load"] = figures_of("loadtest.load", our_timings(options.compare))
    except OSError as error:
        raise BenchError(f"{error.filename}: {error.strerror}; --help shows each step") from error
    print(f"{'':14} {'TTFT p50, ms':>13} {'ITL mean, ms':>13} {'E2E p50, ms':>13} {'tokens/s out':>13}")
    for tool, of in found.items():
        times = " ".join(f"{1e3 * value:13.1f}" for value in (of.ttft_p50_s, of.itl_mean_s, of.e2e_p50_s))
        print(f"{tool:14} {times} {of.tokens_per_s:13.1f}")
    return 0


def _measure(options: argparse.Namespace, folder: Path) -> None:
    tokenizer = options.tokenizer or engine_of(ROOT / "model_repository", options.model) / "tokenizer.json"
    text = profile_text(options)
    profile = profile_of(tomllib.loads(text))
    # Other texts in each run: the same ones would be in the server's prefix cache.
    writer = PromptWriter(TokenizerFile(tokenizer), salt=time.time_ns())
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast"}\n', "utf-8"
    )
    (folder / "profile.toml").write_text(text, "utf-8")
    (folder / "template.json").write_text(TEMPLATE, "utf-8")
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows(profile, writer))
    words = command(options.program.absolute(), options.url, options.model, folder)
    done = subprocess.run(words, cwd=folder, env=environment(os.environ, folder), check=False)
    if done.returncode:
        raise BenchError(f"aiperf ended with code {done.returncode} and says why above; its files: {folder}")


def profile_text(options: argparse.Namespace) -> str:
    """The load as a profile, which loadtest.load takes too."""
    return _PROFILE.format(**vars(options))


def rows(profile: Profile, writer: PromptWriter) -> Iterator[dict[str, Any]]:
    """aiperf's single_turn format; timestamps are milliseconds since the start of the run."""
    for planned in schedule(profile):
        assert planned.at_s is not None
        text, tokens = writer.write(planned), planned.tokens_out
        yield {"timestamp": planned.at_s * 1000, "text": text, "output_length": tokens}


def command(program: Path, url: str, model: str, folder: Path) -> list[str]:
    """One run: one worker and, as our HTTP users do it, a connection for each request."""
    options = {
        "--model": model,
        "--url": url,
        "--endpoint": f"/v2/models/{model}/generate_stream",
        "--endpoint-type": "template",
        "--input-file": f"{folder / 'prompts.jsonl'}",
        "--custom-dataset-type": "single_turn",
        "--tokenizer": f"{folder / 'tokenizer'}",
        "--connection-reuse-strategy": "never",
        "--workers-max": "1",
        "--record-processor-service-count": "1",
        "--ui": "none",
        "--artifact-dir": f"{folder}",
    }
    # A fixed schedule ends with its timestamps; requests that are open then are awaited.
    flags = ["--streaming", "--fixed-schedule", "--no-gpu-telemetry", "--no-server-metrics"]
    words = [word for option in options.items() for word in option]
    for extra in (f"payload_template:{folder / 'template.json'}", "response_field:text_output"):
        words += ["--extra-inputs", extra]
    return [str(program), "profile", *words, *flags]


def environment(ours: Mapping[str, str], home: Path) -> dict[str, str]:
    """aiperf and transformers write into `home` instead of the user's."""
    kept = {name: value for name, value in ours.items() if name != "HF_HUB_OFFLINE"}
    return kept | {"HOME": str(home)}


def timings_of(lines: Iterable[str]) -> list[Timing]:
    """From aiperf's records, without its warm-up. BenchError if a request failed."""
    records = [json.loads(line) for line in lines]
    measured = [r for r in records if r["metadata"]["benchmark_phase"] == "profiling"]
    failed = [r for r in measured if r.get("error") or r["metadata"]["was_cancelled"]]
    if failed:
        raise BenchError(
            f"aiperf: {len(failed)} of {len(measured)} requests failed: {failed[0].get('error')}"
        )
    timings = []
    for record in measured:
        found = record["metrics"]
        names = ("time_to_first_token", "request_latency")
        assert all(found[name]["unit"] == "ms" for name in names), found
        ttft_s, e2e_s = (float(found[name]["value"]) / 1000 for name in names)
        sent_s = record["metadata"]["request_start_ns"] / 1e9
        tokens = int(found["output_sequence_length"]["value"])
        timings.append(Timing(sent_s, ttft_s, sent_s + e2e_s, tokens))
    return timings


def our_timings(folder: Path) -> list[Timing]:
    """Of the measured requests of loadtest.load, from when each should have been sent. BenchError if one
    failed.
    """
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        records = [record for record in decode_lines(lines) if record.phase == "measure"]
    failed = [record for record in records if not record.is_complete or record.ttft_s is None]
    if failed:
        raise BenchError(f"{folder}: {len(failed)} of {len(records)} requests failed: {failed[0].error}")
    return [Timing(r.intended_s, r.ttft_s or 0.0, r.end_s, r.tokens_out) for r in records]


def figures_of(tool: str, timings: Sequence[Timing]) -> Figures:
    """BenchError if the run has no request, or an answer of a single token."""
    if not timings:
        raise BenchError(f"{tool}: no request was answered")
    if short := sum(timing.tokens < 2 for timing in timings):
        raise BenchError(f"{tool}: {short} answers of less than 2 tokens have no inter-token latency")
    wall_s = max(timing.end_s for timing in timings) - min(timing.sent_s for timing in timings)
    return Figures(
        ttft_p50_s=median(timing.ttft_s for timing in timings),
        itl_mean_s=fmean(timing.itl_s for timing in timings),
        e2e_p50_s=median(timing.e2e_s for timing in timings),
        tokens_per_s=sum(timing.tokens for timing in timings) / wall_s,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
