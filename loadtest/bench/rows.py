"""The rows of the tables: how each is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from halimede import Client
from loadtest import artifacts
from loadtest.artifacts import CACHE, MODEL, ROOT
from loadtest.bench import llama, peers
from loadtest.bench.completions import Completions, serving
from loadtest.bench.engines import OFFLINE, Engines
from loadtest.bench.peers import ENVIRONMENTS
from loadtest.bench.plan import REFERENCE, Model, Plan, Row
from loadtest.bench.program import Answer, Program
from loadtest.bench.quality import Losses
from loadtest.bench.sample import Stream
from loadtest.errors import BenchError
from loadtest.launched import Launched, served
from loadtest.ports import held_ports
from loadtest.prompts import Prompt
from loadtest.streams import Streams

LOGS: Final = CACHE / "logs"
_DRAFTS: Final = {"speculative_tokens": "8"}
_OPENVINO_TUNED: Final = {"KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}
_OPENMP: Final = "venv/lib/libiomp5.so"


class Measurable(Protocol):
    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int, /) -> Sequence[Stream]:
        """Answers the prompts at once; for each its chunks. With beams all tokens come at the end."""


@runtime_checkable
class Scoring(Protocol):
    def score(self, windows: Sequence[Prompt], /) -> Losses:
        """The losses of each window's tokens after the first, in nats."""


class InProcess:
    """A row that runs in a program of its own; `last` is its last answer."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.last: Answer = {}

    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> Sequence[Stream]:
        ids = [prompt.ids for prompt in prompts]
        self.last = self._program.ask(do="generate", prompts=ids, max_tokens=max_tokens, num_beams=beams)
        return [[(at, tokens) for at, tokens in stream] for stream in self.last["streams"]]

    def score(self, windows: Sequence[Prompt]) -> Losses:
        losses: Losses = self._program.ask(do="score", windows=[one.ids for one in windows])["losses"]
        return losses


@dataclass(frozen=True, slots=True)
class Batched:
    """llama-batched-bench, started for each measurement; it loads before its clock starts."""

    model: Path
    threads: int

    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> Sequence[Stream]:
        assert beams == 1
        program, tokens_in = peers.llama_binary("llama-batched-bench"), len(prompts[0].ids)
        command = llama.batched_bench(program, self.model, len(prompts), tokens_in, max_tokens, self.threads)
        return llama.batched_streams(_output(command, LOGS / "batched-bench.log"))

    def score(self, windows: Sequence[Prompt]) -> Losses:
        program = peers.llama_binary("llama-results")
        losses = []
        with tempfile.TemporaryDirectory() as folder:
            text, target = Path(folder, "text.txt"), Path(folder, "logits.gguf")
            for window in windows:
                text.write_text(window.text, "utf-8")
                command = llama.results(program, self.model, text, len(window.ids), self.threads, target)
                _output(command, LOGS / "results.log")
                losses.append(llama.result_losses(target, window.ids))
        return losses


def _output(command: Sequence[str], log: Path) -> str:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, cwd=ROOT
        )
    if done.returncode:
        raise BenchError(f"{Path(command[0]).name} failed with code {done.returncode}: see {log}")
    return done.stdout


@dataclass(slots=True)
class Rows:
    """Opens rows of one model; what they start ends with `stack`. `repository` serves the model."""

    plan: Plan
    model: Model
    engines: Engines
    repository: Path
    stack: ExitStack
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    _server: Launched | None = None

    def open(self, row: Row) -> Measurable:
        """Started; ready at its first measurement at the latest. BenchError if it does not start."""
        name, kind = row.name, row.name.partition("-")[2]
        if name in ("grpc", "http", "url"):
            url = self._served().urls[name] if name != "url" else self.plan.url
            assert url is not None
            return self.stack.enter_context(closing(Streams(url, self.model.name)))
        if row.peer == "llama.cpp":
            model = peers.gguf(kind.upper())
            if name.startswith("llama-"):
                return Batched(model, self.threads)
            (port,) = self.stack.enter_context(held_ports(1))
            program = peers.llama_binary("llama-server")
            command = llama.server(program, model, port, self.plan.slots, self.threads)
            return self._completions(f"llama-server-{kind}", command, port, {})
        if name == "vllm":
            (port,) = self.stack.enter_context(held_ports(1))
            checkpoint = self.engines.checkpoint(self.model)
            command, variables = vllm_server(self.plan, checkpoint, port, self.threads)
            return self._completions("vLLM", command, port, variables)
        return InProcess(self.stack.enter_context(self._program(row, kind)))

    def bare(self) -> Program:
        """The engine's graph in a loop that does nothing else."""
        threads = int(artifacts.parameters_of(self.repository)["threads"]) or self.threads
        engine = artifacts.engine_of(self.repository)
        command = [sys.executable, str(ROOT / "server" / "bare.py"), str(engine), f"{threads}"]
        return self.stack.enter_context(Program("the bare loop", command, LOGS / "bare.log"))

    def prefix_cache_hits(self) -> float:
        """Prompt tokens that our server did not compute: they make its figures too good."""
        if self._server is None:
            return 0.0
        urls = self._server.urls
        with Client(urls["http"], metrics_url=urls["metrics"]) as client:
            return client.metrics().total("halimede_prefix_cache_hits_total") or 0.0

    def _program(self, row: Row, kind: str) -> Program:
        python, more = sys.executable, [f"{self.threads}"]
        if row.peer == REFERENCE:
            module, folder = "side_transformers", self.engines.checkpoint(self.model)
        elif row.peer == "openvino":
            module, folder, python = "side_openvino", peers.OPENVINO, str(ENVIRONMENTS["openvino"].python)
            more += [f"{self.plan.slots}", json.dumps(_OPENVINO_TUNED if kind == "tuned" else {})]
        elif row.peer == "onnxruntime-genai":
            module, folder = "side_onnxruntime", peers.onnx(kind)
            python = str(ENVIRONMENTS["onnxruntime-genai"].python)
        else:
            changes = _DRAFTS if kind == "drafts" else {}
            return engine_program(self.repository, self.model.name, changes, LOGS / f"{row.name}.log")
        command = [python, "-m", f"loadtest.bench.{module}", str(folder), *more]
        return Program(row.title, command, LOGS / f"{row.name}.log", {**OFFLINE, "PYTHONPATH": str(ROOT)})

    def _served(self) -> Launched:
        if self._server is None:
            log = LOGS / f"server-{self.repository.name}.log"
            self._server = self.stack.enter_context(served(self.repository, log, self.model.name))
        return self._server

    def _completions(
        self, name: str, command: Sequence[str], port: int, variables: Mapping[str, str]
    ) -> Completions:
        url = self.stack.enter_context(serving(name, command, port, LOGS / f"{name}.log", variables))
        return self.stack.enter_context(closing(Completions(url, MODEL)))


def engine_program(repository: Path, model: str, changes: Mapping[str, str], log: Path) -> Program:
    """Our engine in process, with its config.pbtxt's parameters but for the changes."""
    parameters = json.dumps(artifacts.parameters_of(repository, model) | dict(changes))
    program, engine = str(ROOT / "server" / "inprocess.py"), str(artifacts.engine_of(repository, model))
    command = [sys.executable, program, engine, "--parameters", parameters]
    return Program("the engine in process", command, log)


def vllm_server(plan: Plan, checkpoint: Path, port: int, threads: int) -> tuple[list[str], dict[str, str]]:
    """Its command and variables: OpenMP threads bound one a core, Intel's OpenMP as its manual asks."""
    environment = ENVIRONMENTS["vllm"]
    command = [str(environment.python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(checkpoint), "--served-model-name", MODEL, "--dtype", "bfloat16"]
    command += ["--host", "127.0.0.1", "--port", f"{port}", "--disable-uvicorn-access-log"]
    command += ["--max-model-len", f"{plan.max_context}", "--max-num-seqs", f"{plan.slots}"]
    command += ["--max-num-batched-tokens", "4096", "--no-enable-prefix-caching"]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    variables = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(environment.folder / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(environment.folder / "cache" / "inductor"),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
    }
    preloaded = [os.environ.get("LD_PRELOAD", ""), *map(str, environment.folder.glob(_OPENMP))]
    return command, variables | {"LD_PRELOAD": ":".join(filter(None, preloaded))}
