"""The rows of the tables, each started in the way that suits it best."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

from loadtest import artifacts
from loadtest.artifacts import MODEL, ROOT
from loadtest.bench.throughput import InProcess
from loadtest.bench.throughput import Row as Measurable
from loadtest.errors import BenchError
from loadtest.peers import llama, models
from loadtest.peers.completions import Completions
from loadtest.peers.environment import CACHE, ENVIRONMENTS
from loadtest.peers.plan import FURTHER, Plan
from loadtest.peers.serving import serving
from loadtest.ports import held_ports
from loadtest.program import Program
from loadtest.prompts import Prompt
from loadtest.sample import Stream
from loadtest.served import served
from loadtest.streams import Streams

LOGS: Final = CACHE / "logs"
_TUNED: Final = {"KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}
_DRAFTS: Final = {"speculative_tokens": "8"}
_OPENMP: Final = "venv/lib/libiomp5.so"
Losses = list[list[float]]


class Batched:
    """llama-batched-bench, started anew for each measurement; it loads before its clock starts."""

    def __init__(self, model: Path, threads: int) -> None:
        self._model = model
        self._threads = threads

    def run(self, prompts: Sequence[Prompt], max_tokens: int) -> Sequence[Stream]:
        tokens_in = len(prompts[0].ids)
        command = llama.batched_bench(self._model, len(prompts), tokens_in, max_tokens, self._threads)
        return llama.batched_streams(_output(command, LOGS / "batched-bench.log"))

    def score(self, windows: Sequence[Prompt]) -> Losses:
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            return [self._score(window, Path(folder)) for window in windows]

    def _score(self, window: Prompt, folder: Path) -> list[float]:
        text, target = folder / "text.txt", folder / "logits.gguf"
        text.write_text(window.text, "utf-8")
        command = llama.results(self._model, text, len(window.ids), self._threads, target)
        _output(command, LOGS / "results.log")
        return llama.result_losses(target, window.ids)


def _output(command: Sequence[str], log: Path) -> str:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, cwd=ROOT
        )
    if done.returncode != 0:
        raise BenchError(f"{Path(command[0]).name} failed with code {done.returncode}: see {log}")
    return done.stdout


class Rows:
    """Opens rows by name; `repository` holds our engine with slots for every sequence."""

    def __init__(self, plan: Plan, repository: Path) -> None:
        self._plan = plan
        self._repository = repository
        self._threads = len(os.sched_getaffinity(0))

    def open(self, name: str) -> AbstractContextManager[Measurable]:
        """Started and ready; stopped at the end. BenchError when it does not start."""
        opened: Mapping[str, Callable[[], AbstractContextManager[Measurable]]] = {
            "engine": lambda: self._engine({}),
            "engine-drafts": lambda: self._engine(_DRAFTS),
            "grpc": lambda: self._grpc(self._repository),
            "openvino": lambda: self._openvino("openvino", {}),
            "openvino-tuned": lambda: self._openvino("openvino-tuned", _TUNED),
            "transformers": self._transformers,
            "vllm": self._vllm,
        }
        if name in opened:
            return opened[name]()
        if name.startswith(FURTHER):
            return self._further(name.removeprefix(FURTHER))
        family, _, kind = name.partition("-")
        if family == "ort":
            return self._onnxruntime(kind)
        return self._batched(kind.upper()) if family == "llama" else self._llama_server(kind.upper())

    @contextmanager
    def _engine(self, changes: Mapping[str, str]) -> Iterator[Measurable]:
        parameters = json.dumps(artifacts.parameters_of(self._repository) | dict(changes))
        program = str(ROOT / "server" / "inprocess.py")
        engine = str(artifacts.engine_of(self._repository))
        command = [sys.executable, program, engine, "--parameters", parameters]
        with Program("the engine in process", command, LOGS / "engine.log") as child:
            yield InProcess(child)

    @contextmanager
    def _further(self, parameters: str) -> Iterator[Measurable]:
        """`parameters` as in "stream_interval=1,slots=8"."""
        changes = dict(one.split("=", 1) for one in parameters.split(","))
        folder = self._repository.with_name(f"{self._repository.name}-{parameters}")
        with self._grpc(artifacts.with_parameters(self._repository, folder, changes)) as row:
            yield row

    @contextmanager
    def _grpc(self, repository: Path) -> Iterator[Measurable]:
        with (
            served(repository, LOGS / f"{repository.name}.log") as server,
            closing(Streams(server.grpc, MODEL)) as streams,
        ):
            yield streams
            if server.prefix_cache_hits():
                raise BenchError(f"Triton: {server.prefix_cache_hits():.0f} prompt tokens came from a cache")

    @contextmanager
    def _side(self, name: str, module: str, python: Path, *arguments: object) -> Iterator[Measurable]:
        command = [str(python), "-m", f"loadtest.peers.{module}", *map(str, arguments)]
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONPATH": str(ROOT)}
        with Program(name, command, LOGS / f"{name}.log", offline) as child:
            yield InProcess(child)

    def _openvino(self, name: str, properties: Mapping[str, str]) -> AbstractContextManager[Measurable]:
        python, sequences = ENVIRONMENTS["openvino"].python, self._plan.slots
        arguments = (models.OPENVINO, self._threads, sequences, json.dumps(properties))
        return self._side(name, "side_openvino", python, *arguments)

    def _onnxruntime(self, precision: str) -> AbstractContextManager[Measurable]:
        python, folder = ENVIRONMENTS["onnxruntime-genai"].python, models.onnx(precision)
        return self._side(f"ort-{precision}", "side_onnxruntime", python, folder, self._threads)

    def _transformers(self) -> AbstractContextManager[Measurable]:
        python, folder = Path(sys.executable), models.CHECKPOINT
        return self._side("transformers", "side_transformers", python, folder, self._threads)

    @contextmanager
    def _batched(self, kind: str) -> Iterator[Measurable]:
        yield Batched(models.gguf(kind), self._threads)

    @contextmanager
    def _llama_server(self, kind: str) -> Iterator[Measurable]:
        log = LOGS / f"llama-server-{kind}.log"
        with held_ports(1) as (port,):
            command = llama.server(models.gguf(kind), port, self._plan.slots, self._threads)
            with (
                serving(f"llama-server {kind}", command, port, log, {}) as url,
                closing(Completions(url, MODEL)) as streams,
            ):
                yield streams

    @contextmanager
    def _vllm(self) -> Iterator[Measurable]:
        with held_ports(1) as (port,):
            command, variables = vllm_server(self._plan, port, self._threads)
            with (
                serving("vLLM", command, port, LOGS / "vllm.log", variables) as url,
                closing(Completions(url, MODEL)) as streams,
            ):
                yield streams


def vllm_server(plan: Plan, port: int, threads: int) -> tuple[list[str], dict[str, str]]:
    """Its command and variables: OpenMP threads bound one a core, Intel's OpenMP as its manual asks."""
    environment = ENVIRONMENTS["vllm"]
    command = [str(environment.python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(models.CHECKPOINT), "--served-model-name", MODEL, "--dtype", "bfloat16"]
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
