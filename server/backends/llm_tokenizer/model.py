"""Triton backend `llm_tokenizer`: the first step of an ensemble, from its inputs to token ids.

It checks every input (engine.inputs) and answers a wrong one with INVALID_ARG. It reads the artifact of the
engine step beside it: NAME_tokenizer/../NAME_engine/VERSION.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engine.chat import ChatTemplate
from engine.errors import EngineError, InvalidArgument
from engine.inputs import FIELDS, InputLimits, Inputs, parse_inputs, read_parameters
from engine.manifest import Manifest, read_manifest, verify_files
from engine.metrics import rejection_counter
from engine.orphan import exit_with_parent
from engine.prompt import PromptEncoder, load_tokenizer
from engine.request import Request
from engine.triton import artifact_folder, parameters_of, to_triton_error

CHAT = "chat"
RETURNS = ("num_input_tokens", "num_output_tokens")


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        exit_with_parent()
        config = json.loads(args["model_config"])
        manifest = read_manifest(artifact_folder(args, "_tokenizer"))
        self._rejected = rejection_counter(pb_utils, args)
        self._limits = InputLimits.read(parameters_of(config, InputLimits.__slots__))
        self._encoder = _encoder(manifest)
        self._defaults = manifest.generation
        self._task = manifest.task
        self._vocab = manifest.shape.vocab_size

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            return self._tokenize(request)
        except EngineError as error:
            self._rejected[1].increment(1)
            return pb_utils.InferenceResponse(error=to_triton_error(pb_utils, error))

    def _tokenize(self, request: Any) -> Any:
        now = time.monotonic_ns()
        inputs = self._parse(request)
        if inputs.messages is not None:
            if self._task != CHAT:
                raise InvalidArgument("messages", f"this model's task is {self._task}, use text_input")
            ids = self._encoder.encode_chat(inputs.messages)
        else:
            assert inputs.text is not None
            ids = self._encoder.encode_text(inputs.text)
        envelope = _request(inputs, now).to_json()
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", np.array([ids], np.int32)),
                pb_utils.Tensor("request", np.array([[envelope.encode()]], np.object_)),
            ]
        )

    def _parse(self, request: Any) -> Inputs:
        values = {tensor.name(): _value(tensor) for tensor in request.inputs() if tensor.name() in FIELDS}
        parameters = read_parameters(request.parameters())
        if request.timeout():
            parameters["timeout"] = request.timeout()
        return parse_inputs(values, parameters, self._limits, self._defaults, self._vocab)


def _encoder(manifest: Manifest) -> PromptEncoder:
    template = manifest.path("chat_template.jinja")
    files = ("tokenizer.json", template.name) if template.name in manifest.files else ("tokenizer.json",)
    verify_files(manifest, files)
    chat = ChatTemplate(template.read_text("utf-8"), manifest.special) if len(files) > 1 else None
    return PromptEncoder(load_tokenizer(manifest.path("tokenizer.json")), chat, manifest.prefix)


def _value(tensor: Any) -> Any:
    array = tensor.as_numpy().reshape(-1)
    return (
        array.tolist()
        if tensor.name() == "stop_words"
        else array[0]
        if array.dtype == np.object_
        else array[0].item()
    )


def _request(inputs: Inputs, now: int) -> Request:
    wanted = [name for name in RETURNS if getattr(inputs, f"return_{name}")]
    if inputs.sampling.num_logprobs is not None:
        wanted.append("logprobs")
    return Request(
        prompt=(),
        sampling=inputs.sampling,
        stream=inputs.stream,
        arrival_ns=now,
        deadline_ns=now + 1000 * inputs.timeout_us if inputs.timeout_us else None,
        timeout_us=inputs.timeout_us,
        returns=tuple(wanted),
        ensemble=True,
        open_ended=inputs.open_ended,
    )
