"""Triton backend `llm_tokenizer`: the first step of an ensemble, from its inputs to token ids.

It checks every input (engine.prompts.inputs) and answers a wrong one with INVALID_ARG. It reads the artifacts
of the engine next to it, NAME_tokenizer/../NAME_engine, and prepares a request for each version there.

A MB of text takes more than a second, so a separate thread reads long texts, and short ones do not wait.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engine.core.contract import TokenizerSettings
from engine.core.errors import Cancelled, EngineError, InvalidArgument
from engine.core.request import WORDS
from engine.edge.artifact import Versions, request_key
from engine.edge.metrics import rejection_counter
from engine.edge.settings import read_tokenizer_settings
from engine.edge.triton import (
    answer_of,
    engine_folder,
    exit_with_parent,
    logged,
    parameters_of,
    to_triton_error,
)
from engine.prompts.inputs import FIELDS, TEXTS, read_parameters
from engine.prompts.reader import Reader, Reading, ShortestFirst, write

# Texts up to this size take some 10 ms at most; longer ones go to the separate thread.
AT_ONCE_BYTES = 8192


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        exit_with_parent()
        config = json.loads(args["model_config"])
        limits = read_tokenizer_settings(parameters_of(config, TokenizerSettings.__slots__))
        self._rejected = rejection_counter(pb_utils, args)
        folder = engine_folder(args, "_tokenizer")
        self._readers = Versions(folder, request_key, lambda manifest: Reader(manifest, limits), _log)
        self._long = ShortestFirst("long-prompts", _log)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        self._long.close()

    def _respond(self, request: Any) -> Any:
        """The response; None for a request that the separate thread reads, which sends its own response."""
        try:
            unread = self._begin(request)
            if unread.size <= AT_ONCE_BYTES:
                return self._response(unread)
            sender = request.get_response_sender()
            self._long.put(unread.size, lambda: self._answer(unread, sender))
        except Exception as error:  # noqa: BLE001  whatever it is, this request is answered, and the others run
            return self._refusal(error)
        return None

    def _begin(self, request: Any) -> Unread:
        """Reads what it needs from Triton and from the folder, which only this thread may do."""
        now = time.monotonic_ns()
        values = {tensor.name(): _value(tensor) for tensor in request.inputs() if tensor.name() in FIELDS}
        parameters = _parameters(request)
        if request.timeout():
            parameters["timeout"] = request.timeout()
        return Unread(values, parameters, now, self._readers.all())

    def _answer(self, unread: Unread, sender: Any) -> None:
        try:
            gone = sender.is_cancelled()
            response = _failed(Cancelled("request", "by the client")) if gone else self._response(unread)
        except Exception as error:  # noqa: BLE001  as above
            response = self._refusal(error)
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _response(self, unread: Unread) -> Any:
        ids, written = write(unread.by_key())
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", np.array([ids], np.int32)),
                pb_utils.Tensor("request", np.array([[written.encode()]], np.object_)),
            ]
        )

    def _refusal(self, error: Exception) -> Any:
        self._rejected[1].increment(1)
        return _failed(answer_of(error, _log))


@dataclass(frozen=True, slots=True)
class Unread:
    """A request's inputs, and the readers for them, by key."""

    values: Mapping[str, Any]
    parameters: Mapping[str, Any]
    arrival_ns: int
    readers: Mapping[str, Reader]

    @property
    def size(self) -> int:
        """Bytes of text."""
        texts = (self.values[name] for name in TEXTS if name in self.values)
        words = (word for name in WORDS for word in self.values.get(name, ()))
        return sum(map(len, (*texts, *words)))

    def by_key(self) -> dict[str, Reading]:
        given = self.values, self.parameters, self.arrival_ns
        return {key: reader.try_read(*given) for key, reader in self.readers.items()}


def _parameters(request: Any) -> dict[str, Any]:
    try:
        return read_parameters(request.parameters())
    except UnicodeDecodeError as error:  # Triton lets any bytes through that came as JSON over HTTP
        raise InvalidArgument(
            "parameters", f"not UTF-8 at byte {error.start} of all of them, must be"
        ) from None


def _value(tensor: Any) -> Any:
    array = tensor.as_numpy().reshape(-1)
    return (
        array.tolist()
        if tensor.name() in WORDS
        else array[0]
        if array.dtype == np.object_
        else array[0].item()
    )


def _failed(error: EngineError) -> Any:
    return pb_utils.InferenceResponse(error=to_triton_error(pb_utils, error))


def _log(error: BaseException) -> None:
    pb_utils.Logger.log_error(f"llm_tokenizer: {logged(error)}")
