"""Every row starts the program that its name says, with the weights that its name says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loadtest.bench import peers, rows
from loadtest.bench.plan import COMPARED, PEERS, ROWS, Plan
from loadtest.bench.rows import Batched, Rows

CONFIG = """parameters { key: "threads" value { string_value: "3" } }
parameters { key: "speculative_tokens" value { string_value: "0" } }
"""
# Of each row what its command, or the folder of its server, must name.
STARTED = {
    "engine": ("inprocess.py", '"speculative_tokens": "0"'),
    "engine-drafts": ("inprocess.py", '"speculative_tokens": "8"'),
    "openvino": ("side_openvino", "openvino/int8", "{}"),
    "openvino-tuned": ("side_openvino", "openvino/int8", '"KV_CACHE_PRECISION": "f16"'),
    "ort-int8": ("side_onnxruntime", "onnxruntime-genai/int8"),
    "ort-int4": ("side_onnxruntime", "onnxruntime-genai/int4"),
    "llama-q8_0": ("llama.cpp/Q8_0.gguf",),
    "llama-q4_0": ("llama.cpp/Q4_0.gguf",),
    "llama-q4_1": (".gguf",),
    "transformers": ("side_transformers", "/checkpoint"),
    "grpc": ("serve smollm2", "grpc://smollm2"),
    "http": ("http://smollm2",),
    "url": ("127.0.0.1:9",),
    "server-q8_0": ("/llama-server", "llama.cpp/Q8_0.gguf", "-np 32"),
    "server-q4_0": ("/llama-server", "llama.cpp/Q4_0.gguf"),
    "server-q4_1": ("/llama-server", ".gguf"),
    "vllm": ("vllm.entrypoints", "/checkpoint", "--max-num-seqs 32"),
}


class Started:
    """Stands for every program and client that a row starts; `log` has their commands."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def program(self, _name: str, command: Sequence[str], *_: Any) -> Any:
        self._log.append(" ".join(command))
        return ExitStack()

    def streams(self, url: str, _model: str) -> Any:
        self._log.append(url)
        return SimpleNamespace(close=lambda: None)

    @contextmanager
    def served(self, repository: Path, _log: Path, _model: str) -> Iterator[Any]:
        self._log.append(f"serve {repository.name}")
        yield SimpleNamespace(urls={kind: f"{kind}://{repository.name}" for kind in ("http", "grpc")})

    @contextmanager
    def serving(self, _name: str, command: Sequence[str], *_: Any) -> Iterator[str]:
        self._log.append(" ".join(command))
        yield "http://127.0.0.1:9"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    started = Started(found)
    for name, fake in (
        ("Program", started.program),
        ("Streams", started.streams),
        ("Completions", started.streams),
        ("served", started.served),
        ("serving", started.serving),
    ):
        monkeypatch.setattr(rows, name, fake)
    monkeypatch.setattr(peers, "llama_binary", lambda name: Path("/bin", name))
    monkeypatch.setattr(peers, "gguf_file", lambda: Path("package.gguf"))
    return found


def _rows(folder: Path, stack: ExitStack) -> Rows:
    engine = folder / "smollm2" / "smollm2_engine"
    engine.mkdir(parents=True)
    (engine / "config.pbtxt").write_text(CONFIG)
    plan = Plan(models=(COMPARED,), peers=PEERS, url="127.0.0.1:9")
    engines = cast(Any, SimpleNamespace(checkpoint=lambda _model: Path("/checkpoint")))
    return Rows(plan, COMPARED, engines, folder / "smollm2", stack)


def test_every_row_is_known_here() -> None:
    assert set(STARTED) == {row.name for row in ROWS}


@pytest.mark.parametrize("name", STARTED)
def test_a_row_starts_what_its_name_says(name: str, log: list[str], tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.name == name)
    with ExitStack() as stack:
        opened = _rows(tmp_path, stack).open(row)
    if isinstance(opened, Batched):  # it starts its program for each measurement
        log.append(str(opened.model))
    shown = " ".join(log)
    assert [part for part in STARTED[name] if part not in shown] == []


def test_rows_of_one_server_share_it(log: list[str], tmp_path: Path) -> None:
    by_name = {row.name: row for row in ROWS}
    with ExitStack() as stack:
        opener = _rows(tmp_path, stack)
        for name in ("grpc", "http"):
            opener.open(by_name[name])
    assert log == ["serve smollm2", "grpc://smollm2", "http://smollm2"]


def test_the_bare_graph_has_as_many_threads_as_the_engine(log: list[str], tmp_path: Path) -> None:
    with ExitStack() as stack:
        _rows(tmp_path, stack).bare()
    assert log[0].endswith("smollm2_engine/1 3")
