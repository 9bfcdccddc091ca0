"""Tokenizer, engine and detokenizer step together, as Triton runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.edge.artifact import read_manifest
from engine.edge.settings import Settings
from engine.service import Service
from tests.fakes.loop import ToyModel, ToyRunner, opened
from tests.fakes.triton import (
    InferenceRequest,
    InputTensor,
    Response,
    Sender,
    Tensor,
)
from tests.models.artifact import byte_tokenizer, write_artifact

VOCAB = byte_tokenizer().get_vocab_size()
CONTEXT = 96


class Ensemble:
    """Runs a request through tokenizer, engine and detokenizer, as Triton does."""

    def __init__(self, repository: Path, load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
        write_artifact(repository / "toy_engine" / "1")
        self.runner = ToyRunner(2, CONTEXT, ToyModel(VOCAB))
        self.modules = {step: load(step) for step in ("tokenizer", "engine", "detokenizer")}
        monkeypatch.setattr(self.modules["engine"], "open_service", self.open)
        self.tokenizer, self.engine, self.detokenizer = (
            self.make(repository, step) for step in ("tokenizer", "engine", "detokenizer")
        )

    def make(self, repository: Path, step: str) -> Any:
        model = self.modules[step].TritonPythonModel()
        parameters = {
            "engine": {"slots": "2", "max_context": str(CONTEXT), "heartbeat_ms": "10"},
            "tokenizer": {"default_max_tokens": "12"},
        }
        ours = parameters.get(step, {})
        config = {"parameters": {name: {"string_value": text} for name, text in ours.items()}}
        model.initialize(
            {
                "model_repository": str(repository / f"toy_{step}"),
                "model_version": "1",
                "model_name": f"toy_{step}",
                "model_instance_name": f"toy_{step}_0_0",
                "model_instance_kind": "CPU",
                "model_instance_device_id": "0",
                "model_config": json.dumps(config),
            }
        )
        return model

    def open(
        self,
        folder: Path,
        settings: Settings,
        signals: Path,
        report: Any,
        placed: int | None,
        give_up: Callable[[], None],
    ) -> Service:
        assert placed is None
        return Service(opened(read_manifest(folder), self.runner), settings, signals, report, give_up)

    def tokenize(self, parameters: dict[str, Any] | None = None, timeout: int = 0, **inputs: Any) -> Response:
        tensors: list[Tensor] = [InputTensor(name, value) for name, value in inputs.items()]
        request = InferenceRequest(tensors, parameters, timeout)
        (response,) = self.tokenizer.execute([request])
        if response is None:
            response, final = request.sender.sent.get(timeout=30)
            assert final
        assert isinstance(response, Response)
        return response

    def submit(self, tokenized: Response) -> Sender:
        assert tokenized.error is None, tokenized.error
        request = InferenceRequest(tokenized.output_tensors)
        assert self.engine.execute([request]) is None
        return request.sender

    def detokenize(self, chunk: Response, cancelled: bool = False) -> Response:
        request = InferenceRequest(chunk.output_tensors)
        request.cancelled = cancelled
        (response,) = self.detokenizer.execute([request])
        assert isinstance(response, Response)
        return response

    def answers(self, sender: Sender, cancelled: bool = False) -> list[Response]:
        """All responses up to the final one; an error is not seen by the detokenizer."""
        found = []
        while True:
            response, final = sender.sent.get(timeout=30)
            found.append(response if response.error else self.detokenize(response, cancelled))
            if final:
                return found

    def ask(
        self, parameters: dict[str, Any] | None = None, timeout: int = 0, **inputs: Any
    ) -> list[Response]:
        tokenized = self.tokenize(parameters, timeout, **inputs)
        return [tokenized] if tokenized.error else self.answers(self.submit(tokenized))
