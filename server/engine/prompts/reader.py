"""A client's inputs as one version of a model reads them: a prompt in its token ids, and its sampling.

While two versions serve, the tokenizer step writes a request once for each version that reads it differently,
and each engine takes its own (`write`, `pick`). Long texts are read on a separate thread (`ShortestFirst`).
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from queue import PriorityQueue
from typing import Any, Final

from engine.core.contract import TokenizerSettings
from engine.core.errors import ArtifactError, EngineError, InvalidArgument, Unavailable, shown
from engine.core.request import Request, parse_json, sampling_from
from engine.edge.artifact import Manifest, read_manifest, verify_files
from engine.prompts.chat import ChatTemplate, PromptEncoder, load_tokenizer, parse_messages
from engine.prompts.inputs import Inputs, parse_inputs

CHAT: Final = "chat"
RETURNS: Final = ("num_input_tokens", "num_output_tokens")

Reading = Request | EngineError


class Reader:
    """Opens the tokenizer and the chat template; raises ArtifactError when they are not the manifest's.

    It also raises ArtifactError when the manifest's generation settings would be refused in every request.
    """

    def __init__(self, manifest: Manifest, limits: TokenizerSettings) -> None:
        _check_defaults(manifest, limits)
        self._manifest = manifest
        self._limits = limits
        self._encoder = _encoder(manifest)

    def read(self, values: Mapping[str, Any], parameters: Mapping[str, Any], now_ns: int) -> Request:
        """Raises InvalidArgument for what this model does not take."""
        manifest = self._manifest
        vocabulary = manifest.shape.vocab_size
        inputs = parse_inputs(values, parameters, self._limits, manifest.generation, vocabulary)
        return _request(inputs, self._encode(inputs), now_ns)

    def try_read(self, values: Mapping[str, Any], parameters: Mapping[str, Any], now_ns: int) -> Reading:
        """Like `read`, but returns the fault instead of raising it."""
        try:
            return self.read(values, parameters, now_ns)
        except EngineError as error:
            return error

    def _encode(self, inputs: Inputs) -> list[int]:
        if inputs.messages is None:
            assert inputs.text is not None
            return self._encoder.encode_text(inputs.text)
        if self._manifest.task != CHAT:
            raise InvalidArgument("messages", f"this model's task is {self._manifest.task}, use text_input")
        return self._encoder.encode_chat(inputs.messages)


def write(readings: Mapping[str, Reading]) -> tuple[Sequence[int], str]:
    """The tensors `input_ids` and `request` for readings by key; raises the first fault if all are faults.

    `input_ids` are those of the first reading that is no fault; `request` has the ids of the others.
    """
    good = {key: reading for key, reading in readings.items() if isinstance(reading, Request)}
    if not good:
        raise next(fault for fault in readings.values() if isinstance(fault, EngineError))
    first = next(iter(good))
    written = [_written(key, reading, with_ids=key != first) for key, reading in readings.items()]
    return good[first].prompt, f"[{','.join(written)}]"


def pick(text: str, ids: Sequence[int], key: str) -> Request:
    """The reading for `key`; raises its fault. A request that no tokenizer step wrote is one object.

    Raises Unavailable when there is no reading for this engine, and InvalidArgument for a malformed request.
    """
    written = parse_json("request", text)
    if not isinstance(written, list):
        return Request.from_fields(written, tuple(ids))
    for entry in written:
        if isinstance(entry, dict) and entry.get("for") == key:
            if "fault" in entry:
                raise InvalidArgument(*_fault(entry["fault"]))
            return Request.from_fields(
                entry.get("request"), _ids(entry["ids"]) if "ids" in entry else tuple(ids)
            )
    raise Unavailable("model", "its files were replaced by those of another model: reload it")


def _fault(written: object) -> tuple[str, str]:
    match written:
        case [str(field), str(problem)]:
            return field, problem
    raise InvalidArgument("request", f"fault: {shown(str(written))}, must be a field and a problem")


def _ids(written: object) -> tuple[int, ...]:
    if not isinstance(written, list) or not all(type(number) is int for number in written):
        raise InvalidArgument("request", f"ids: {shown(str(written))}, must be a list of whole numbers")
    return tuple(written)


def _written(key: str, reading: Reading, with_ids: bool) -> str:
    if isinstance(reading, EngineError):
        return json.dumps({"for": key, "fault": [reading.field, reading.problem]})
    ids = f'"ids":{json.dumps(reading.prompt)},' if with_ids else ""
    return f'{{"for":"{key}",{ids}"request":{reading.to_json()}}}'


def main(folder: Path, lines: Iterable[str]) -> None:
    """For each line with the inputs of a request, prints how they are read; `--check` of the build compares
    it.
    """
    encoder = _encoder(read_manifest(folder))
    for line in lines:
        inputs = json.loads(line)
        try:
            print(json.dumps(_shown(encoder, inputs)))
        except EngineError as error:
            print(json.dumps({"refused": str(error)}))


def _check_defaults(manifest: Manifest, limits: TokenizerSettings) -> None:
    try:
        sampling_from({}, {"max_tokens": limits.default_max_tokens, **manifest.generation})
    except EngineError as error:
        problem = f"generation: {error}; correct the checkpoint's generation_config.json and build it again"
        raise ArtifactError("manifest", problem) from error


def _shown(encoder: PromptEncoder, inputs: Mapping[str, Any]) -> dict[str, Any]:
    if "messages" not in inputs:
        return {"ids": encoder.encode_text(inputs["text_input"])}
    messages = parse_messages(json.dumps(inputs["messages"]))
    return {"ids": encoder.encode_chat(messages), "rendered": encoder.render(messages)}


def _encoder(manifest: Manifest) -> PromptEncoder:
    template = manifest.path("chat_template.jinja")
    files = ("tokenizer.json", template.name) if template.name in manifest.files else ("tokenizer.json",)
    verify_files(manifest, files)
    chat = ChatTemplate(template.read_text("utf-8"), manifest.special) if len(files) > 1 else None
    positions = manifest.shape.max_source_positions or manifest.shape.max_positions
    return PromptEncoder(load_tokenizer(manifest.path("tokenizer.json")), chat, manifest.prefix, positions)


def _request(inputs: Inputs, ids: Sequence[int], now_ns: int) -> Request:
    wanted = [name for name in RETURNS if getattr(inputs, f"return_{name}")]
    if inputs.sampling.num_logprobs is not None:
        wanted.append("logprobs")
    return Request(
        prompt=tuple(ids),
        sampling=inputs.sampling,
        stream=inputs.stream,
        arrival_ns=now_ns,
        deadline_ns=now_ns + 1000 * inputs.timeout_us if inputs.timeout_us else None,
        timeout_us=inputs.timeout_us,
        returns=tuple(wanted),
        ensemble=True,
        open_ended=inputs.open_ended,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin)


class ShortestFirst:
    """Runs the smallest of the waiting jobs; an exception in one is reported and affects no other."""

    def __init__(self, name: str, report: Callable[[BaseException], None]) -> None:
        self._waiting: PriorityQueue[tuple[float, int, Callable[[], None] | None]] = PriorityQueue()
        self._number = count()  # jobs of one size in their order
        self._report = report
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, size: int, job: Callable[[], None]) -> None:
        self._waiting.put((size, next(self._number), job))

    def close(self) -> None:
        """Returns when the jobs that wait are done."""
        self._waiting.put((math.inf, next(self._number), None))
        self._thread.join()

    def _run(self) -> None:
        while job := self._waiting.get()[2]:
            try:
                job()
            except Exception as error:  # noqa: BLE001  whatever it is, the next job runs
                self._report(error)
