"""Where a model comes from: an engine, the reference and a server give the same form, or say why not."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from build.quantise import Precision
from safety.evaluate.model import Completion, Model, ModelError, Window
from safety.sources import Options, open_model
from safety.sources.engine import Program
from safety.sources.reference import Reference, open_reference
from safety.sources.server import KEY, Server, open_server
from tests.fakes.completions import Completions, pair_score, serving
from tests.models import tiny
from tests.models.tiny_engine import NAME, publish

TEXT = "the hen then the net"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an fp32 engine's repository and its checkpoint."""
    folder = tmp_path_factory.mktemp("sources")
    publish(folder, Precision.FP32)
    return folder


@pytest.fixture(scope="module")
def engine(published: Path) -> Iterator[Model]:
    with open_model(NAME, Options(published / "repository")) as model:
        yield model


@pytest.fixture(scope="module")
def reference(published: Path) -> Reference:
    return open_reference(str(published / "checkpoint"))


def windows(model: Model) -> list[Window]:
    tokens = (model.prefix, *model.encode(TEXT))
    lengths = [len(tokens), 4, len(tokens) - 1, 4, 2, 1, len(tokens)]
    return [
        Window(tokens[:length], min(start, length))
        for length, start in zip(lengths, range(1, 8), strict=True)
    ]


def test_the_engine_scores_as_the_reference_does(engine: Model, reference: Reference) -> None:
    asked = windows(engine)
    assert asked == windows(reference)
    for ours, theirs, window in zip(engine.score(asked), reference.score(asked), asked, strict=True):
        assert len(ours) == len(window.tokens) - window.start
        assert ours == pytest.approx(theirs, abs=1e-4)
        assert all(score < 0 for score in ours)


def test_the_probabilities_of_all_next_tokens_add_up_to_1(reference: Reference) -> None:
    asked = [Window((1, 4, token), 2) for token in range(len(tiny.VOCAB))]
    assert math.fsum(math.exp(score) for (score,) in reference.score(asked)) == pytest.approx(1, abs=1e-6)


def test_the_reference_scores_a_window_the_same_in_any_company(reference: Reference) -> None:
    asked = windows(reference)
    assert list(reference.score(asked)) == [next(reference.score([window])) for window in asked]


def test_seeds_choose_an_answer_and_no_seed_is_greedy(engine: Model) -> None:
    tokens = (engine.prefix, *engine.encode("the"))
    seeds = [1, 1, 2, None, None]
    answers = list(engine.complete([Completion(tokens, 8, seed) for seed in seeds]))
    assert answers[0] == answers[1] != answers[2]
    assert answers[3] == answers[4]


def test_a_chat_is_the_engines_template(engine: Model) -> None:
    assert engine.chat("the") == [*engine.encode("the"), 0]


def test_an_engine_without_a_template_says_so(tmp_path: Path) -> None:
    repository = publish(tmp_path, template=None)
    with open_model(NAME, Options(repository)) as model, pytest.raises(ModelError, match="task is complete"):
        model.chat("the")


def test_facts_say_what_was_measured(engine: Model, reference: Reference, published: Path) -> None:
    manifest = published / "repository" / f"{NAME}_engine" / "1" / "manifest.json"
    assert json.loads(manifest.read_text())["precision"] == engine.facts["precision"] == "fp32"
    assert engine.facts["kernels"].startswith("none: ")
    assert engine.positions == 256
    assert reference.facts["precision"] == "fp32"
    assert len(engine.facts["weights"]) == len(reference.facts["weights"]) == 64


def test_the_newest_version_is_found_by_its_number(published: Path, tmp_path: Path) -> None:
    newest = tmp_path / "mine_engine" / "10"
    newest.parent.mkdir()
    newest.symlink_to(published / "repository" / f"{NAME}_engine" / "1")
    (tmp_path / "mine_engine" / "9").mkdir()
    (tmp_path / "mine_engine" / "9" / "manifest.json").write_text("{}")
    for text in ("mine", str(tmp_path / "mine_engine"), str(newest)):
        with open_model(text, Options(tmp_path)) as model:
            assert model.name == NAME


def test_a_model_that_is_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match=r"model 'gpt9': no manifest.json .* make engines MODEL=gpt9"),
        open_model("gpt9", Options(tmp_path)),
    ):
        pass


@pytest.mark.parametrize("text", ["", "{}", '{"model": 3}'])
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with (
        pytest.raises(ModelError, match=r"manifest\.json cannot be read"),
        open_model(str(tmp_path), Options()),
    ):
        pass


def test_an_engine_whose_weights_changed_says_so(tmp_path: Path) -> None:
    repository = publish(tmp_path)
    with (repository / f"{NAME}_engine" / "1" / "model.onnx.data").open("ab") as file:
        file.write(b"1")
    with (
        pytest.raises(ModelError, match=r"ended with code 1: .*model.onnx.data"),
        open_model(NAME, Options(repository)),
    ):
        pass


def test_a_program_that_dies_is_an_error_with_its_last_words() -> None:
    script = "import sys; print('{}', flush=True); input(); sys.exit('no more paper')"
    with closing(Program("printer", [sys.executable, "-c", script])) as program:
        with pytest.raises(ModelError, match="printer: its program ended with code 1: no more paper"):
            program.ask(do="print")
        with pytest.raises(ModelError, match="printer: its program ended"):
            program.ask(do="print")


def test_an_unknown_source_of_the_reference_is_named() -> None:
    with pytest.raises(ModelError, match="reference:nowhere: source 'nowhere'"):
        open_reference("nowhere")


def test_the_reference_answers_no_prompts(reference: Reference) -> None:
    with pytest.raises(ModelError, match="scores only"):
        list(reference.complete([Completion((1,), 1)]))


# Servers.


@pytest.fixture(scope="module")
def tokenizer(published: Path) -> Path:
    return published / "checkpoint"


@pytest.fixture
def toy(tokenizer: Path) -> Completions:
    return Completions(Tokenizer.from_file(str(tokenizer / "tokenizer.json")))


def opened(address: str, tokenizer: Path, waits: list[float] | None = None, key: str | None = None) -> Server:
    environ = {} if key is None else {KEY: key}
    return open_server(address, tokenizer, environ, (waits if waits is not None else []).append)


@pytest.mark.parametrize("takes_tokens", [True, False])
@pytest.mark.parametrize("begins", [None, 0])
def test_a_server_scores_by_its_own_model(
    toy: Completions, tokenizer: Path, takes_tokens: bool, begins: int | None
) -> None:
    toy.takes_tokens, toy.begins = takes_tokens, begins
    with serving(toy) as url, closing(opened(f"{url}/v1", tokenizer)) as server:
        asked = windows(server)
        for found, window in zip(server.score(asked), asked, strict=True):
            pairs = list(zip(window.tokens, window.tokens[1:], strict=False))
            assert found == [pair_score(u, t) for u, t in pairs][window.start - 1 :]
        assert server.facts["prompts"] == ("token ids" if takes_tokens else "text")


def test_a_server_is_asked_for_samples_with_the_seed(toy: Completions, tokenizer: Path) -> None:
    with serving(toy) as url, closing(opened(url, tokenizer)) as server:
        answers = list(server.complete([Completion((3, 4), 5, seed=7), Completion((3, 4), 5)]))
    assert answers[0] == answers[1] != ""
    wanted: list[dict[str, Any]] = [{"temperature": 1, "seed": 7}, {"temperature": 0}]
    for body, fields in zip(
        sorted(toy.bodies[-2:], key=lambda one: -one["temperature"]), wanted, strict=True
    ):
        assert body == {"model": "toy", "prompt": [3, 4], "max_tokens": 5, **fields}


def test_a_server_renders_chats_by_the_tokenizers_folder(toy: Completions, tokenizer: Path) -> None:
    with serving(toy) as url, closing(opened(url, tokenizer)) as server:
        assert server.chat("the") == [*server.encode("the"), 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logprobs": False}, "answers no log-probabilities"),
        ({"echo": False}, "ignores echo: 1 tokens came back for"),
        ({"honest": False}, "its log-probabilities disagree: token 1 has .* with more text after them"),
        ({"models": ("a", "b")}, "serves a, b: write http://.*#NAME of one"),
        ({"models": ()}, "serves no model"),
        ({"key": "secret"}, f"answered 401: .*the key is read from {KEY}"),
    ],
)
def test_a_server_that_does_otherwise_is_refused(
    toy: Completions, tokenizer: Path, changes: dict[str, Any], message: str
) -> None:
    for name, value in changes.items():
        setattr(toy, name, value)
    with serving(toy) as url, pytest.raises(ModelError, match=message):
        opened(url, tokenizer)


def test_a_server_whose_generation_has_other_scores_is_refused(toy: Completions, tokenizer: Path) -> None:
    plain = toy.answer

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, found = plain(body)
        if not body.get("echo") and body.get("logprobs"):
            scores = found["choices"][0]["logprobs"]["token_logprobs"]
            scores[:] = [score - 1 for score in scores]
        return status, found

    toy.answer = answer  # type: ignore[method-assign]  # the one thing that it does otherwise
    with serving(toy) as url, pytest.raises(ModelError, match=r"disagree: .* when it generates them"):
        opened(url, tokenizer)


def test_a_key_and_a_models_name_are_sent(toy: Completions, tokenizer: Path) -> None:
    toy.key, toy.models = "secret", ("a", "b")
    with serving(toy) as url, closing(opened(f"{url}/#b", tokenizer, key="secret")) as server:
        assert server.name.startswith("b at ")
    assert {body["model"] for body in toy.bodies} == {"b"}


def test_a_busy_server_is_asked_again_when_it_says(toy: Completions, tokenizer: Path) -> None:
    waits: list[float] = []
    toy.failures = [(429, {"retry-after": "3"}), (503, {}), (429, {"retry-after": "900"})]
    with serving(toy) as url, closing(opened(url, tokenizer, waits)):
        assert waits == [3.0, 1.0, 30.0]


def test_a_server_that_stays_busy_is_given_up(toy: Completions, tokenizer: Path) -> None:
    toy.failures = [(500, {})] * 9
    waits: list[float] = []
    with serving(toy) as url, pytest.raises(ModelError, match=r"answered 500: .*, 5 times"):
        opened(url, tokenizer, waits)
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_a_server_that_is_not_there_is_named(tokenizer: Path) -> None:
    with pytest.raises(ModelError, match=r"http://127.0.0.1:9/v1/models: cannot be reached"):
        opened("http://127.0.0.1:9", tokenizer)


def test_a_server_needs_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs --tokenizer"):
        open_server("http://127.0.0.1:9", None)
    with pytest.raises(ModelError, match=f"--tokenizer {tmp_path}: cannot be read"):
        open_server("http://127.0.0.1:9", tmp_path)


def test_another_tokenizer_than_the_servers_is_named(
    toy: Completions, tokenizer: Path, tmp_path: Path
) -> None:
    """The server splits texts otherwise: each letter is a token."""
    toy.takes_tokens = False
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    content["model"]["merges"] = []
    toy.tokenizer = Tokenizer.from_str(json.dumps(content))
    with serving(toy) as url, pytest.raises(ModelError, match="its tokenizer is another"):
        opened(url, tokenizer)


def test_scores_are_numbers(reference: Reference) -> None:
    assert all(np.isfinite(score) for found in reference.score(windows(reference)) for score in found)
