"""Triton backend `llm_detokenizer`: the last step of an ensemble, from a chunk of token ids to text.

It is stateless, and it never returns an error: an error of the last step would leave the request in flight
for ever. A chunk that it cannot read becomes an empty text, and a signal to the engine, which ends the
request. It is also the only step that notices a disconnected client, which it signals to the engine too.

It decodes the chunks of every version of the engine: each chunk names the token table that decodes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engine.core.tokens import TokenTable, load_table
from engine.edge.artifact import Manifest, Versions, table_key, verify_files
from engine.edge.channel import Signal, SignalSender
from engine.edge.chunks import FALLBACK, Answer, decode_chunk, read_handle, read_table
from engine.edge.triton import engine_folder, exit_with_parent, logged


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        exit_with_parent()
        folder = engine_folder(args, "_detokenizer")
        self._tables = Versions(folder, table_key, _open_table, _log)
        self._engine = SignalSender()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        chunk = b""
        try:
            chunk = pb_utils.get_input_tensor_by_name(request, "chunk").as_numpy().item()
            decoded = decode_chunk(chunk, self._tables.find(read_table(chunk)))
            if request.is_cancelled():
                self._tell(decoded.handle, Signal.CANCEL)
            return _response(decoded.answer)
        except Exception as error:  # noqa: BLE001  see above: whatever it is, the ensemble must get its response
            _log(error)
            self._tell(read_handle(chunk), Signal.FAULT)
            return _response(FALLBACK)

    def _tell(self, handle: str, signal: Signal) -> None:
        if not self._engine.send(handle, signal):
            pb_utils.Logger.log_warn(f"llm_detokenizer: cannot reach the engine to signal {signal}")


def _open_table(manifest: Manifest) -> TokenTable:
    verify_files(manifest, ("tokens.bin",))
    return load_table(manifest.path("tokens.bin"))


def _log(error: BaseException) -> None:
    pb_utils.Logger.log_error(f"llm_detokenizer: {logged(error)}")


def _response(answer: Answer) -> Any:
    tensors = [_text("text_output", answer.text), _text("finish_reason", answer.finish_reason)]
    if answer.num_input_tokens is not None:
        tensors.append(_count("num_input_tokens", answer.num_input_tokens))
    if answer.num_output_tokens is not None:
        tensors.append(_count("num_output_tokens", answer.num_output_tokens))
    if answer.logprobs is not None:
        tensors.append(_text("logprobs", answer.logprobs))
    return pb_utils.InferenceResponse(tensors)


def _text(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([[text.encode()]], np.object_))


def _count(name: str, number: int) -> Any:
    return pb_utils.Tensor(name, np.array([[number]], np.int32))
