"""Encoder-decoders through the whole engine against transformers' generate, token for token."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from build.quantise import Precision
from engine.core.request import FinishReason, parse_early_stopping

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]

from tests.models import tiny_seq2seq as tiny  # noqa: E402  (needs torch)
from tests.models.seq2seq_engines import open_model, write_engine  # noqa: E402
from tests.unit.engine.runners.seq2seq_loops import Serving, answer_of  # noqa: E402

KINDS = ("bart", "marian", "t5")


class Pair:
    """transformers' model, and the engine over the same weights."""

    def __init__(self, folder: Path, kind: str) -> None:
        checkpoint = tiny.write_folder(folder / "checkpoint", kind)
        self.oracle = tiny.load(checkpoint)
        settings = self.oracle.generation_config
        self.start, self.eos = settings.decoder_start_token_id, settings.eos_token_id
        self.engine = write_engine(folder / "engine", *open_model(checkpoint), Precision.FP32)

    def serving(self, slots: int = 6) -> Serving:
        return Serving(self.engine, self.start, frozenset({self.eos}), slots)

    def source(self, seed: int, length: int) -> list[int]:
        picker = random.Random(seed)
        return [picker.randrange(3, 60) for _ in range(length)]

    def expected(self, source: list[int], sampling: dict[str, Any]) -> tuple[list[int], FinishReason]:
        """What generate answers with the same settings, without the end-of-sequence token."""
        options = {
            "num_beams": 1, "max_new_tokens": 16, "min_new_tokens": sampling.get("min_tokens"),
            "length_penalty": 1.0, "early_stopping": False, "no_repeat_ngram_size": 0,
            "forced_bos_token_id": None, "forced_eos_token_id": None, "suppress_tokens": None,
            "bad_words_ids": None, **{k: v for k, v in sampling.items() if k != "min_tokens"},
        }  # fmt: skip
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            ids = torch.tensor([source])
            mask = torch.ones_like(ids)
            found = self.oracle.generate(
                ids, attention_mask=mask, do_sample=False, use_cache=False, **options
            )
        answer = found[0, 1:].tolist()
        if answer[-1] == self.eos:
            return answer[:-1], FinishReason.STOP
        return answer, FinishReason.LENGTH


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("seq2seq"), request.param)


def as_sampling(options: dict[str, Any]) -> dict[str, Any]:
    sampling = dict(options)
    if "early_stopping" in sampling:
        sampling["early_stopping"] = parse_early_stopping(str(sampling["early_stopping"]).lower())
    return sampling


OPTIONS: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.4, "min_tokens": 5},
    {"forced_bos_token_id": 9, "forced_eos_token_id": 2},
    {"suppress_tokens": (5, 6, 7, 8)},
    {"num_beams": 4},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3},
    {"num_beams": 2, "length_penalty": -1.0, "min_tokens": 4},
    {"num_beams": 3, "early_stopping": "never", "forced_eos_token_id": 2},
    {"num_beams": 5, "repetition_penalty": 1.3, "forced_bos_token_id": 9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_are_those_of_generate(pair: Pair, options: dict[str, Any]) -> None:
    if "forced_eos_token_id" in options:
        options = options | {"forced_eos_token_id": pair.eos}
    serving = pair.serving()
    for seed in (0, 2):
        source = pair.source(seed, 1 + 11 * seed)
        assert serving.answer(source, **as_sampling(options)) == pair.expected(source, options)


def test_searches_and_greedy_answers_share_steps(pair: Pair) -> None:
    """More than the slots hold, of all kinds, so that rows come and go."""
    serving = pair.serving(slots=5)
    asked = [(pair.source(seed, 1 + seed * 5), OPTIONS[seed % len(OPTIONS)]) for seed in range(12)]
    asked = [
        (s, o | ({"forced_eos_token_id": pair.eos} if "forced_eos_token_id" in o else {})) for s, o in asked
    ]
    clients = [serving.ask(source, **as_sampling(options)) for source, options in asked]
    serving.run()
    for client, (source, options) in zip(clients, asked, strict=True):
        assert answer_of(client) == pair.expected(source, options)
    assert len(serving.slots.free) == 5
