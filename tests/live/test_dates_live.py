"""A BART that was really trained, from its checkpoint through the whole ensemble: the answers are right."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.live.artifacts import CACHE
from tests.live.serving import Server, started
from tests.live.wire import Address, ask, refused
from tests.live.wire_grpc import GrpcWire
from tests.live.wire_http import HttpWire
from tests.models import dates
from tests.paths import ROOT

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.e2e, pytest.mark.parity, pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "dates"
TOKENS = 20
RECIPE = """\
name = "dates"
task = "translate"
precision = "{precision}"
source = "{source}"
"""


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """Trained once, and kept as long as the training is the same."""
    from tests.models import trained_bart  # noqa: PLC0415 (torch may be missing)

    sources = [Path(module.__file__ or "").read_bytes() for module in (dates, trained_bart)]
    digest = hashlib.sha256(b"".join(sources)).hexdigest()[:16]
    folder = CACHE / f"dates-{digest}"
    if not (folder / "model.safetensors").is_file():
        for stale in CACHE.glob("dates-*"):
            shutil.rmtree(stale)
        trained_bart.train(folder)
    return folder


def _build(repository: Path, checkpoint: Path, precision: str) -> None:
    recipe = repository.with_suffix(".toml")
    recipe.write_text(RECIPE.format(precision=precision, source=checkpoint))
    command = [sys.executable, "-m", "build", str(recipe), "--repository", str(repository)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=["fp32", "int8"])
def server(request: pytest.FixtureRequest, checkpoint: Path, workshop: Path) -> Iterator[Server]:
    repository = workshop / f"dates-{request.param}"
    repository.mkdir()
    _build(repository, checkpoint, request.param)
    with started(repository, workshop / f"dates-{request.param}.log") as running:
        running.model = NAME
        yield running.wait_ready()
    shutil.rmtree(repository)


@pytest.fixture(scope="module")
def examples() -> list[dates.Pair]:
    """None of them is likely to be among the examples of the training."""
    return dates.pairs(40, seed=1_000_003)


def _answers(address: Address, examples: list[dates.Pair], **inputs: Any) -> list[str]:
    def answer(pair: dates.Pair) -> str:
        with GrpcWire(address) as wire:
            return ask(wire, pair.written, max_tokens=TOKENS, **inputs).text

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(answer, examples))


@pytest.mark.parametrize(
    "inputs", [{}, {"stream": True}, {"num_beams": 4}], ids=["greedy", "streamed", "beams"]
)
def test_the_answers_are_right(server: Server, examples: list[dates.Pair], inputs: dict[str, Any]) -> None:
    answers = _answers(server.address, examples, **inputs)
    right = sum(answer == pair.iso for answer, pair in zip(answers, examples, strict=True))
    assert right >= 0.95 * len(examples), list(zip(answers, examples, strict=True))


def test_greedy_sampled_and_searched_requests_share_the_batch(
    server: Server, examples: list[dates.Pair]
) -> None:
    """Each kind answers as it does alone."""
    kinds: list[dict[str, Any]] = [{}, {"num_beams": 3}, {"temperature": 0.8, "seed": 7}]
    alone = [_answers(server.address, [pair], **kinds[i % 3])[0] for i, pair in enumerate(examples[:9])]
    with ThreadPoolExecutor(9) as threads:
        together = [
            threads.submit(_answers, server.address, [pair], **kinds[i % 3])
            for i, pair in enumerate(examples[:9])
        ]
        assert [answer.result()[0] for answer in together] == alone


@pytest.mark.parametrize("server", ["fp32"], indirect=True)  # rounded weights may choose otherwise
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 4},
        {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "true", "no_repeat_ngram_size": 2},
        {"num_beams": 3, "length_penalty": 0.0, "early_stopping": "never"},
        {"no_repeat_ngram_size": 1},
    ],
    ids=["greedy", "beams", "beams with all options", "beams that never stop early", "no token twice"],
)
def test_it_answers_as_transformers_does(
    server: Server, checkpoint: Path, examples: list[dates.Pair], options: dict[str, Any]
) -> None:
    answers = _answers(server.address, examples[:12], **options)
    assert answers == [_generated(checkpoint, pair.written, options) for pair in examples[:12]]


def _generated(checkpoint: Path, text: str, options: dict[str, Any]) -> str:
    words = {"true": True, "false": False}
    options = {
        key: words.get(value, value) if isinstance(value, str) else value for key, value in options.items()
    }
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint)
    model = transformers.BartForConditionalGeneration.from_pretrained(checkpoint).eval()
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.inference_mode():
        output = model.generate(ids, max_new_tokens=TOKENS, do_sample=False, **options)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def test_a_search_cannot_be_streamed(server: Server) -> None:
    for wire in (HttpWire(server.address), GrpcWire(server.address)):
        with wire:
            error = refused(wire, text_input="May 1, 1999", num_beams=4, stream=True).refusal
    assert (error.code, error.field) == ("INVALID_ARG", "stream")
    assert "beams" in error.problem


def test_what_the_source_cannot_hold_is_refused(server: Server) -> None:
    with GrpcWire(server.address) as wire:
        error = refused(wire, text_input="12 May 1999 " * 100).refusal
    assert error.code == "INVALID_ARG"
    assert "128" in error.problem


def test_a_conversation_is_refused(server: Server) -> None:
    with GrpcWire(server.address) as wire:
        error = refused(wire, messages='[{"role": "user", "content": "hello"}]').refusal
    assert (error.code, error.field) == ("INVALID_ARG", "messages")
