"""Triton backend `llm_tokenizer`: the first step of an ensemble, from its inputs to token ids.

It checks every input (engine.inputs) and answers a wrong one with INVALID_ARG. It reads the artifacts of the
engine step beside it, NAME_tokenizer/../NAME_engine, and reads a request as each version there would.
"""

from __future__ import annotations

import json
import time
import traceback
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engine.errors import EngineError, InvalidArgument
from engine.inputs import FIELDS, InputLimits, read_parameters
from engine.metrics import rejection_counter
from engine.orphan import exit_with_parent
from engine.reader import Reader, write
from engine.triton import answer_of, engine_folder, parameters_of, to_triton_error
from engine.versions import Versions, request_key


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        exit_with_parent()
        config = json.loads(args["model_config"])
        limits = InputLimits.read(parameters_of(config, InputLimits.__slots__))
        self._rejected = rejection_counter(pb_utils, args)
        folder = engine_folder(args, "_tokenizer")
        self._readers = Versions(folder, request_key, lambda manifest: Reader(manifest, limits), _log)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            return self._tokenize(request)
        except Exception as error:  # noqa: BLE001  whatever it is, this request is answered, and the others run
            self._rejected[1].increment(1)
            return pb_utils.InferenceResponse(error=to_triton_error(pb_utils, answer_of(error, _log)))

    def _tokenize(self, request: Any) -> Any:
        now = time.monotonic_ns()
        values = {tensor.name(): _value(tensor) for tensor in request.inputs() if tensor.name() in FIELDS}
        parameters = _parameters(request)
        if request.timeout():
            parameters["timeout"] = request.timeout()
        readers = self._readers.all().items()
        ids, written = write({key: reader.try_read(values, parameters, now) for key, reader in readers})
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", np.array([ids], np.int32)),
                pb_utils.Tensor("request", np.array([[written.encode()]], np.object_)),
            ]
        )


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
        if tensor.name() == "stop_words"
        else array[0]
        if array.dtype == np.object_
        else array[0].item()
    )


def _log(error: BaseException) -> None:
    """Where a fault came from; a prompt is never in it, which an error that is not ours may quote."""
    if isinstance(error, EngineError):
        pb_utils.Logger.log_error(f"llm_tokenizer: {error}")
        return
    frames = "".join(traceback.format_tb(error.__traceback__)[-4:])
    pb_utils.Logger.log_error(f"llm_tokenizer: {type(error).__name__}\n{frames}")
