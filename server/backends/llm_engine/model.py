"""Triton backend `llm_engine`: the engine step of an ensemble, decoupled.

A thin adapter: it turns Triton's requests into the engine's, and the engine's chunks into responses. The
engine batches, Triton does not.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engine.core.contract import EngineSettings
from engine.core.errors import Cancelled, EngineError
from engine.edge.artifact import request_key, table_key
from engine.edge.chunks import Chunk
from engine.edge.load_board import LoadBoard
from engine.edge.metrics import MetricsFlusher
from engine.edge.settings import read_settings
from engine.edge.traces import Ending, Trace, open_exporter
from engine.edge.triton import (
    answer_of,
    artifact_folder,
    end_server,
    exit_with_parent,
    gpu_of,
    instances_of,
    load_board_of,
    parameters_of,
    signals_of,
    to_triton_error,
)
from engine.prompts.reader import pick
from engine.runners.kernels import KernelUse
from engine.runners.opening import asks_to_describe, description_chunk
from engine.service import open_service

HOUSEKEEPING_SECONDS = 0.02


class TritonResponder:
    """One request's response sender."""

    def __init__(self, sender: Any, table: str) -> None:
        """`table` is the key of the token table that its chunks are decoded with."""
        self._sender = sender
        self._table = table

    def send(self, chunk: Chunk, final: bool) -> None:
        self.send_json(chunk.to_json(self._table).encode(), final)

    def send_json(self, data: bytes, final: bool) -> None:
        tensor = pb_utils.Tensor("chunk", np.array([[data]], np.object_))
        self._sender.send(pb_utils.InferenceResponse([tensor]), flags=_flags(final))

    def fail(self, error: EngineError) -> None:
        response = pb_utils.InferenceResponse(error=to_triton_error(pb_utils, error))
        self._sender.send(response, flags=_flags(True))

    def is_cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        exit_with_parent()
        config = json.loads(args["model_config"])
        settings = read_settings(parameters_of(config, EngineSettings.__slots__), os.environ)
        signals = signals_of(os.environ)
        self._service = open_service(artifact_folder(args), settings, signals, _log, gpu_of(args), _give_up)
        instances = instances_of(config)
        kernels = self._service.kernels
        if kernels:
            _tell(self._service.manifest.name, kernels)
        elif self._service.description["experimental"]:
            _warn_experimental(self._service.description)
        labels = kernels.labels if kernels else ()
        self._metrics = MetricsFlusher(pb_utils, self._service.recorder, args, instances, labels)
        self._board = None
        if instances > 1:
            board = load_board_of(args, os.environ)
            self._board = LoadBoard(board, instances, lambda: len(self._service.loop.keys()))
        manifest = self._service.manifest
        self._key, self._table = request_key(manifest), table_key(manifest)
        name, recorder = args["model_name"].removesuffix("_engine"), self._service.recorder
        self._exporter = open_exporter(os.environ, name, recorder.spans_dropped, _log)
        self._direct: dict[int, TritonResponder] = {}
        self._stopping = threading.Event()
        self._housekeeper = threading.Thread(target=self._keep_house, name="engine-metrics", daemon=True)
        self._service.start()
        self._housekeeper.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            responder = TritonResponder(request.get_response_sender(), self._table)
            trace = None
            try:
                trace = self._exporter.begin(request.trace().get_context()) if self._exporter else None
                self._submit(request, responder, trace)
            except Exception as error:  # noqa: BLE001  whatever it is, this request is answered, and the others run
                self._refuse(responder, trace, answer_of(error, _log))
        if self._board:
            self._board.wait_turn()

    def finalize(self) -> None:
        self._stopping.set()
        self._housekeeper.join()
        self._service.close()
        if self._exporter:
            self._exporter.close()
        self._metrics.close()
        if self._board:
            self._board.close()

    def _submit(self, request: Any, responder: TritonResponder, trace: Trace | None) -> None:
        ids = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy()
        envelope = pb_utils.get_input_tensor_by_name(request, "request").as_numpy().item()
        text = envelope.decode("utf-8", "replace")
        if asks_to_describe(text):
            responder.send_json(description_chunk(self._service.description), final=True)
            return
        accepted = pick(text, ids.reshape(-1).tolist(), self._key)
        key = self._service.submit(accepted, responder, trace)
        if not accepted.ensemble:
            self._direct[key] = responder

    def _refuse(self, responder: TritonResponder, trace: Trace | None, error: EngineError) -> None:
        try:
            responder.fail(error)
            self._service.recorder.rejected(error.code.lower())
            if trace:
                trace.ended(Ending(time.monotonic_ns(), error=error))
        except Exception as fault:  # noqa: BLE001  the others of the call are still to come
            _log(fault)

    def _keep_house(self) -> None:
        """Flushes metrics, and cancels requests that came without an ensemble and whose clients
        disconnected.
        """
        while not self._stopping.wait(HOUSEKEEPING_SECONDS):
            try:
                self._cancel_direct()
                if self._board:
                    self._board.publish()
                self._metrics.flush(time.monotonic())
            except Exception as error:  # noqa: BLE001 (one bad call must not end the metrics for good)
                _log(error)

    def _cancel_direct(self) -> None:
        # In this order: a request that is submitted in between must not count as ended.
        watched = list(self._direct.items())
        alive = set(self._service.loop.keys()) if watched else set()
        for key, responder in watched:
            if key not in alive:
                del self._direct[key]
            elif responder.is_cancelled():
                self._service.loop.cancel(key, Cancelled("request", "by the client"))


def _give_up() -> None:
    pb_utils.Logger.log_error("llm_engine: a bug ended the loop; the server stops, start it again")
    end_server()


def _tell(name: str, kernels: KernelUse) -> None:
    """Logs what computes the model on this CPU; a warning if the kernels could, but do not.

    The launcher turns off Triton's log of information, so that line goes to stderr directly.
    """
    if kernels.could_run:
        slow = f"llm_engine: {name} runs on ONNX Runtime, which is slower: {kernels.missing}"
        pb_utils.Logger.log_warn(slow)
        return
    on = f"the kernels, level {kernels.level}" if kernels.level else f"ONNX Runtime: {kernels.missing}"
    print(f"llm_engine: {name} runs on {on}", file=sys.stderr, flush=True)


def _warn_experimental(description: Mapping[str, Any]) -> None:
    name, device = description["name"], description["device"]
    pb_utils.Logger.log_warn(f"llm_engine: {name} runs on {device}, which is experimental: docs/gpu.md")


def _flags(final: bool) -> int:
    return int(pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL) if final else 0


def _log(error: BaseException) -> None:
    """Logs where a fault came from, never a prompt or an answer."""
    frames = "".join(traceback.format_tb(error.__traceback__)[-4:])
    pb_utils.Logger.log_error(f"llm_engine: {type(error).__name__}: {error}\n{frames}")
