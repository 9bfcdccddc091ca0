"""Requests that no client of ours would send, from a seed: over gRPC past any stub's checks, and over HTTP.

Each begins as a good request to one of an ensemble's models and is spoilt in one way, its kind. Nothing here
knows what the right answer is: there must be one, that is all.

What is known to end Triton 2.51 is left out (docs/design.md): requests on one stream to
models that answer once and to others that stream; the metadata `triton_grpc_error`; bodies in very many
chunks. And what was seen once in some 100,000 calls: a ModelInfer that is cancelled may be freed twice.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tritonclient.grpc import service_pb2

from tests.contract import TYPES

STREAM, UNARY = "ModelStreamInfer", "ModelInfer"
GOOD: Final[dict[str, Any]] = {
    "text_input": "Once upon a time", "messages": '[{"role": "user", "content": "Hi"}]', "max_tokens": 2,
    "min_tokens": 1, "temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "top_k": 3, "repetition_penalty": 1.1,
    "frequency_penalty": 0.1, "presence_penalty": 0.1, "seed": 7, "stop_words": ["never said", "nor this"],
    "logit_bias": '{"5": 1}', "ignore_eos": True, "num_logprobs": 1, "num_beams": 2, "length_penalty": 1.0,
    "early_stopping": "never", "no_repeat_ngram_size": 2, "stream": True, "return_num_input_tokens": True,
    "return_num_output_tokens": True,
}  # fmt: skip
FORMATS: Final = {"INT32": "<i", "FP32": "<f", "UINT64": "<Q", "BOOL": "<?"}
DATATYPES: Final = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32",
    "FP64", "BYTES", "", "int32", "TYPE_STRING", "STRING", "INVALID", "\0", "𝔅YTES", "BYTES" * 500,
)  # fmt: skip
CONTENTS: Final = tuple(field.name for field in service_pb2.InferTensorContents.DESCRIPTOR.fields)
SIZES: Final = (
    *(-1, -2, -(2**31), -(2**63), 0, 2, 3, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1),
)
LENGTHS: Final = (0, 1, 3, 4, 5, 255, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)
NUMBERS: Final = (0, -1, 1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 2**64 - 1)
OPTIONS: Final = tuple(name for name in GOOD if name not in {"text_input", "messages", "max_tokens"})
# What Triton and its frontends read among the parameters of requests and tensors, and what they do not.
PARAMETERS: Final = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "shared_memory_region",
    "shared_memory_offset", "shared_memory_byte_size", "binary_data_size", "binary_data_output",
    "binary_data", "classification", "headers", "triton_enable_empty_final_response", "triton_", "max_tokens",
    "n", "", "\n", "ü" * 999,
)  # fmt: skip
WORDS: Final = (
    "", "0", "-1", "1e999", "true", "null", "{}", "[]", "[[]]", '{"a":', "NaN", "\0", "../../etc/passwd",
    "%s%n", "🂡" * 40, "x" * 70_000, "[" * 20_000, '{"a":' * 5_000,
)  # fmt: skip

Request = Any  # protobuf's classes have no types


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC: its messages, then the client's half is closed. Cancelled after so many seconds, or never."""

    kind: str
    method: str
    messages: tuple[bytes, ...]
    leaves_after: float | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """All that is written to a connection for HTTP, closed after so many seconds or once it is answered."""

    kind: str
    data: bytes
    leaves_after: float | None = None


def infer_request(model: str, inputs: Mapping[str, Any], raw: bool) -> Request:
    """A good one to an ensemble or its tokenizer."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, value in inputs.items():
        values = list(value) if isinstance(value, list) else [value]
        plain = [value.encode() if isinstance(value, str) else value for value in values]
        tensor = request.inputs.add(name=name, datatype=TYPES[name], shape=[1, len(values)])
        if raw:
            request.raw_input_contents.append(b"".join(_bytes(TYPES[name], value) for value in plain))
        else:
            getattr(tensor.contents, _field(TYPES[name])).extend(plain)
    return request


def _field(datatype: str) -> str:
    return {"BYTES": "bytes_contents", "INT32": "int_contents", "UINT64": "uint64_contents"}.get(
        datatype, f"{datatype.lower()}_contents"
    )


def _bytes(datatype: str, value: Any) -> bytes:
    return _string(value) if datatype == "BYTES" else struct.pack(FORMATS[datatype], value)


def _string(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


class Malformed:
    """Endless, and the same for the same seed.

    `engine` and `detokenizer` are good requests to these steps of the ensemble `model`.
    """

    def __init__(self, seed: int, model: str, engine: Request, detokenizer: Request) -> None:
        self._rng = random.Random(seed)
        self._model = model
        self._engine = engine
        self._detokenizer = detokenizer

    def call(self) -> Call:
        rng = self._rng
        kind = rng.choice((*SPOILT, *SPOILT_BYTES, *STREAMS, "other_rpc"))
        if kind == "other_rpc":
            method, message = _other(rng)
            return Call(kind, method, (message,), self._leaving())
        if kind in STREAMS:
            return Call(kind, STREAM, self._messages() if kind == "many" else (), self._leaving())
        message, method = self._message(kind, streams=rng.random() < 0.5), rng.choice((STREAM, STREAM, UNARY))
        return Call(kind, method, (message,), self._leaving() if method == STREAM else None)

    def post(self) -> Post:
        rng = self._rng
        kind = rng.choice(tuple(POSTS))
        inputs = {
            name: GOOD[name] for name in ("text_input", "max_tokens", *rng.sample(OPTIONS, rng.randrange(4)))
        }
        return Post(kind, POSTS[kind](rng, self._model, inputs), self._leaving())

    def _leaving(self) -> float | None:
        return self._rng.random() ** 3 * 0.1 if self._rng.random() < 0.15 else None

    def _messages(self) -> tuple[bytes, ...]:
        streams = self._rng.random() < 0.5
        kinds = self._rng.choices(
            (*(name for name in SPOILT if name not in {"model", "huge"}), "good"), k=self._rng.randrange(2, 9)
        )
        return tuple(self._message(kind, streams) for kind in kinds)

    def _message(self, kind: str, streams: bool) -> bytes:
        request = self._good(streams)
        if kind in SPOILT:
            SPOILT[kind](self._rng, request)
        data: bytes = request.SerializeToString()
        return SPOILT_BYTES[kind](self._rng, data) if kind in SPOILT_BYTES else data

    def _good(self, streams: bool) -> Request:
        """To the ensemble or its engine, or to one of the steps that answer once."""
        rng = self._rng
        if rng.random() < 0.4:
            request = service_pb2.ModelInferRequest()
            request.CopyFrom(self._engine if streams else self._detokenizer)
            return request
        names = (rng.choice(("text_input", "text_input", "messages")), "max_tokens")
        inputs = {name: GOOD[name] for name in (*names, *rng.sample(OPTIONS, rng.randrange(5)))}
        return infer_request(
            self._model if streams else f"{self._model}_tokenizer", inputs, rng.random() < 0.5
        )


def _tensor(rng: random.Random, request: Request) -> tuple[int, Any]:
    at = rng.randrange(len(request.inputs))
    return at, request.inputs[at]


def _shape(rng: random.Random, request: Request) -> None:
    _, tensor = _tensor(rng, request)
    shapes: tuple[Callable[[], list[int]], ...] = (
        list,
        lambda: [rng.choice(SIZES)],
        lambda: [1, rng.choice(SIZES)],
        lambda: [rng.choice(SIZES), 1],
        lambda: [rng.choice(SIZES), rng.choice(SIZES)],
        lambda: [1] * rng.choice((3, 64, 5000)),
        lambda: [2**32, 2**32, 1],
        lambda: rng.choices(SIZES, k=rng.randrange(1, 6)),
    )
    tensor.shape[:] = rng.choice(shapes)()


def _datatype(rng: random.Random, request: Request) -> None:
    _tensor(rng, request)[1].datatype = rng.choice(DATATYPES)


def _contents(rng: random.Random, request: Request) -> None:
    """Typed contents of another type or of several, or more or fewer values than the shape has."""
    _, tensor = _tensor(rng, request)
    del request.raw_input_contents[:]
    for name in rng.sample(CONTENTS, rng.choice((1, 1, 2, len(CONTENTS)))):
        one: Any = b"x" if name == "bytes_contents" else 1
        getattr(tensor.contents, name).extend([one] * rng.choice((0, 1, 1, 2, 3, 1000)))


def _raw(rng: random.Random, request: Request) -> list[bytes]:
    """Its raw contents, made up where it has none."""
    if not request.raw_input_contents:
        request.raw_input_contents.extend(rng.randbytes(rng.choice(LENGTHS[:6])) for _ in request.inputs)
        for tensor in request.inputs:
            tensor.ClearField("contents")
    return list(request.raw_input_contents)


def _raw_length(rng: random.Random, request: Request) -> None:
    raw, (at, _) = _raw(rng, request), _tensor(rng, request)
    longer, shorter = (
        raw[at] + rng.randbytes(rng.choice(LENGTHS[1:8])),
        raw[at][: rng.randrange(len(raw[at]) + 1)],
    )
    request.raw_input_contents[at] = rng.choice((longer, shorter, b"", raw[at] * 2))


def _string_length(rng: random.Random, request: Request) -> None:
    """A prefix that says another length than its string has."""
    raw = _raw(rng, request)
    at = rng.choice([index for index, tensor in enumerate(request.inputs) if tensor.datatype == "BYTES"])
    wrong = struct.pack("<I", rng.choice((*LENGTHS, max(len(raw[at]) - 5, 0), len(raw[at]) - 3)) % 2**32)
    request.raw_input_contents[at] = rng.choice((wrong + raw[at][4:], raw[at] + wrong, wrong, wrong[:3]))
    if rng.random() < 0.3:
        request.inputs[at].shape[:] = [1, rng.choice((0, 1, 2, 3))]


def _raw_count(rng: random.Random, request: Request) -> None:
    raw = _raw(rng, request)
    more = [*raw, *(rng.randbytes(8) for _ in range(rng.choice((1, 2, 300))))]
    request.raw_input_contents[:] = rng.choice((more, raw[:-1], raw[1:], [b""] * len(raw)))


def _raw_and_typed(rng: random.Random, request: Request) -> None:
    _raw(rng, request)
    for tensor in rng.sample(list(request.inputs), rng.randrange(1, len(request.inputs) + 1)):
        getattr(tensor.contents, rng.choice(CONTENTS[1:-1])).extend([1] * rng.choice((1, 2, 50)))


def _duplicate(rng: random.Random, request: Request) -> None:
    at, tensor = _tensor(rng, request)
    for _ in range(rng.choice((1, 2, 400))):
        request.inputs.add().CopyFrom(tensor)
        if request.raw_input_contents:
            request.raw_input_contents.append(request.raw_input_contents[at])


def _missing(rng: random.Random, request: Request) -> None:
    at, _ = _tensor(rng, request)
    if rng.random() < 0.3:
        del request.inputs[:]
        del request.raw_input_contents[:]
        return
    del request.inputs[at]
    if request.raw_input_contents:
        del request.raw_input_contents[at]


def _renamed(rng: random.Random, request: Request) -> None:
    _tensor(rng, request)[1].name = rng.choice(
        (*WORDS, "max_token", "INPUT__0", "chunk", "request", "input_ids")
    )


def _outputs(rng: random.Random, request: Request) -> None:
    names = ("text_output", "finish_reason", "logprobs", "chunk", "input_ids", "request", *WORDS)
    for name in rng.choices(names, k=rng.choice((1, 2, 5, 300))):
        output = request.outputs.add(name=name)
        if rng.random() < 0.5:
            _parameter(rng, output.parameters[rng.choice(PARAMETERS)])


def _parameter(rng: random.Random, parameter: Any) -> None:
    kind = rng.choice(("bool_param", "int64_param", "string_param", "double_param", "uint64_param", ""))
    values: dict[str, Callable[[], Any]] = {
        "bool_param": lambda: rng.random() < 0.5,
        "int64_param": lambda: rng.choice([number for number in NUMBERS if -(2**63) <= number < 2**63]),
        "uint64_param": lambda: rng.choice([number for number in NUMBERS if number >= 0]),
        "double_param": lambda: rng.choice((0.0, -1.5, 1e308, float("inf"), float("nan"))),
        "string_param": lambda: rng.choice(WORDS),
    }
    if kind:
        setattr(parameter, kind, values[kind]())


def _parameters(rng: random.Random, request: Request) -> None:
    for name in rng.sample(PARAMETERS, rng.choice((1, 1, 2, len(PARAMETERS)))):
        _parameter(rng, request.parameters[name])


def _input_parameters(rng: random.Random, request: Request) -> None:
    _, tensor = _tensor(rng, request)
    for name in rng.sample(PARAMETERS, rng.choice((1, 1, 3, len(PARAMETERS)))):
        _parameter(rng, tensor.parameters[name])


def _values(rng: random.Random, request: Request) -> None:
    """In its form all right: what is in it is not."""
    raw = _raw(rng, request)
    for at in rng.sample(range(len(raw)), rng.randrange(1, len(raw) + 1)):
        tensor = request.inputs[at]
        if tensor.datatype == "BYTES":
            text = raw[at][4:]
            cut = rng.randrange(len(text) + 1)
            junk: bytes = rng.choice(
                (
                    *(word.encode() for word in WORDS),
                    rng.randbytes(20),
                    text[:cut],
                    text[:cut] + text[cut + 1 :],
                )
            )
            tensor.shape[:] = [1, 1]
            request.raw_input_contents[at] = _string(junk)
        else:
            tensor.shape[:] = [1, len(raw[at]) // max(_width(tensor.datatype), 1)]
            request.raw_input_contents[at] = rng.randbytes(len(raw[at]))


def _width(datatype: str) -> int:
    return {"BOOL": 1, "UINT64": 8}.get(datatype, 4)


def _model(rng: random.Random, request: Request) -> None:
    if rng.random() < 0.5:
        request.model_name = rng.choice(
            ("nobody", f"{request.model_name}\0", request.model_name.upper(), *WORDS)
        )
    else:
        request.model_version = rng.choice(("2", "99999999999999999999", *WORDS))


def _huge(rng: random.Random, request: Request) -> None:
    """A mebibyte or more where some bytes are expected."""
    size = rng.choice((2**20, 2**20 + 1, 2**21, 3 * 2**20))
    place = rng.choice(("id", "name", "value", "parameter", "datatype", "output"))
    _, tensor = _tensor(rng, request)
    match place:
        case "id":
            request.id = "i" * size
        case "name":
            tensor.name = "n" * size
        case "value":
            at, _ = _tensor(rng, request)
            _raw(rng, request)
            request.raw_input_contents[at] = _string(b"v" * size)
        case "parameter":
            request.parameters["p" * 1000].string_param = "p" * size
        case "datatype":
            tensor.datatype = "d" * size
        case _:
            request.outputs.add(name="o" * size)


SPOILT: Final[dict[str, Callable[[random.Random, Request], None]]] = {
    "shape": _shape, "datatype": _datatype, "contents": _contents, "raw_length": _raw_length,
    "string_length": _string_length, "raw_count": _raw_count, "raw_and_typed": _raw_and_typed,
    "duplicate": _duplicate, "missing": _missing, "renamed": _renamed, "outputs": _outputs,
    "parameters": _parameters, "input_parameters": _input_parameters, "values": _values, "model": _model,
    "huge": _huge,
}  # fmt: skip


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _flipped(rng: random.Random, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def _noise(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.choice((1, 2, 20, 5000)))


def _not_utf8(rng: random.Random, data: bytes) -> bytes:
    """A name whose bytes are no UTF-8; protobuf's own classes would not write it."""
    names = [name.encode() for name in (*GOOD, "input_ids", "request", "chunk", "smollm2")]
    name = rng.choice([name for name in names if name in data])
    return data.replace(name, b"\xff" * len(name), 1)


SPOILT_BYTES: Final[dict[str, Callable[[random.Random, bytes], bytes]]] = {
    "cut": _cut, "flipped": _flipped, "noise": _noise, "not_utf8": _not_utf8,
}  # fmt: skip
STREAMS: Final = ("many", "none")  # how many messages


def _other(rng: random.Random) -> tuple[str, bytes]:
    """Any other method, with noise or with fields of junk; no name in them is one of the server's."""
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    method = rng.choice([method for method in service.methods if method.name not in {STREAM, UNARY}])
    if rng.random() < 0.3:
        return method.name, _noise(rng, b"")
    message = getattr(service_pb2, method.input_type.name)()
    for field in method.input_type.fields:
        _fill(rng, message, field)
    return method.name, message.SerializeToString()


def _fill(rng: random.Random, message: Any, field: Any) -> None:
    junk = ("nobody", *WORDS)
    match field.type:
        case field.TYPE_STRING:
            setattr(message, field.name, rng.choice(junk))
        case field.TYPE_BYTES:
            setattr(message, field.name, rng.randbytes(rng.choice((0, 1, 64, 1000))))
        case field.TYPE_UINT64 | field.TYPE_INT64:
            setattr(message, field.name, rng.choice([number for number in NUMBERS if 0 <= number < 2**63]))
        case field.TYPE_BOOL:
            setattr(message, field.name, rng.random() < 0.5)
        case field.TYPE_MESSAGE:
            entry = getattr(message, field.name)[rng.choice(junk)]
            if hasattr(entry, "value"):
                entry.value.extend(rng.choices(junk, k=2))
            else:
                entry.SetInParent()


def _http(path: str, body: bytes, *headers: str, method: str = "POST", length: int | None = None) -> bytes:
    told = f"Content-Length: {len(body) if length is None else length}"
    return (
        "\r\n".join(
            (f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", told, *headers, "\r\n")
        ).encode()
        + body
    )


def _generate_path(rng: random.Random, model: str) -> str:
    return f"/v2/models/{model}/{rng.choice(('generate', 'generate_stream'))}"


def _wrong_kind(rng: random.Random, model: str, inputs: dict[str, Any]) -> bytes:
    junk: tuple[Any, ...] = (
        None, True, -1, 1.5, 2**64, 10**400, "", "x" * 70_000, [], [1, 2], [[]], {}, {"a": 1}, "\ud800",
    )  # fmt: skip
    for name in rng.sample((*inputs, *PARAMETERS), rng.choice((1, 1, 2, 6))):
        inputs[name] = rng.choice(junk)
    return _http(_generate_path(rng, model), json.dumps(inputs).encode())


def _bad_json(rng: random.Random, model: str, inputs: dict[str, Any]) -> bytes:
    good = json.dumps(inputs).encode()
    spoil = rng.choice(tuple(SPOILT_BYTES.values())[:3])
    body = rng.choice(
        (spoil(rng, good), rng.choice(WORDS).encode(), good + good, b'{"text_input": "\xff"}', b"")
    )
    return _http(_generate_path(rng, model), body)


def _short_body(rng: random.Random, model: str, inputs: dict[str, Any]) -> bytes:
    """Its length says more than comes, or less, or nothing."""
    body = json.dumps(inputs).encode()
    length = rng.choice((len(body) + rng.choice(LENGTHS[1:]), len(body) // 2, -1, 2**64))
    return _http(_generate_path(rng, model), body, length=length)


def _json_tensors(rng: random.Random, model: str, inputs: dict[str, Any]) -> bytes:
    tensors: list[dict[str, Any]] = [
        {"name": name, "datatype": TYPES[name], "shape": [1, 1], "data": [value]}
        for name, value in inputs.items()
    ]
    junk: tuple[Any, ...] = (
        None,
        "x",
        -1,
        1.5,
        [],
        {},
        [None],
        ["a", 1],
        [[1]],
        {"a": 1},
        [2**70],
        "BYTES",
        [-1, 2**62],
    )
    for _ in range(rng.choice((1, 1, 3))):
        rng.choice(tensors)[rng.choice(("name", "datatype", "shape", "data", "parameters"))] = rng.choice(
            junk
        )
    body: dict[str, Any] = {"inputs": rng.choice((tensors, tensors, tensors * 2, [], {}, None))}
    if rng.random() < 0.3:
        body[rng.choice(("id", "parameters", "outputs"))] = rng.choice(junk)
    return _http(f"/v2/models/{model}{rng.choice(('', '_tokenizer'))}/infer", json.dumps(body).encode())


def _binary_tensors(rng: random.Random, model: str, inputs: dict[str, Any]) -> bytes:
    """The sizes of binary data, or of the JSON before it, are not what comes."""
    raw = _string(b"Hi")
    size = rng.choice((len(raw), *LENGTHS, -1, 2**63 - 1, 2**64, "6", None))
    tensor = {
        "name": "text_input",
        "datatype": "BYTES",
        "shape": [1, 1],
        "parameters": {"binary_data_size": size},
    }
    header = json.dumps({"inputs": [tensor]}).encode()
    told = rng.choice((len(header), len(header), *LENGTHS, -1, 2**64, "x"))
    path = f"/v2/models/{model}_tokenizer/infer"
    return _http(
        path, header + raw[: rng.randrange(len(raw) + 1)], f"Inference-Header-Content-Length: {told}"
    )


def _no_such_path(rng: random.Random, model: str, inputs: dict[str, Any]) -> bytes:
    path = rng.choice((
        "/", "/v2", "/v2/models", "/v2/models/", "/v2/models/nobody/generate", "/v2/../x", "/%00%ff",
        "/" + "a" * 70_000,
        f"/v2/models/{model}/versions/x/generate", f"/v2/models/{model}/versions/{10**20}/ready",
        f"/v2/models/{model}//generate",
        "/v2/repository/models/nobody/load", "/v2/trace/setting", "/v2/logging",
        "/v2/systemsharedmemory/region/x/register",
    ))  # fmt: skip
    return _http(path, b"{", method=rng.choice(("GET", "POST", "PUT", "DELETE", "NOTHING")))


def _no_http(rng: random.Random, model: str, inputs: dict[str, Any]) -> bytes:
    good = _http(_generate_path(rng, model), json.dumps(inputs).encode())
    return rng.choice(
        (_noise(rng, b""), _flipped(rng, good), _cut(rng, good), b"\r\n\r\n", good.replace(b"\r", b""))
    )


POSTS: Final[dict[str, Callable[[random.Random, str, dict[str, Any]], bytes]]] = {
    "wrong_kind": _wrong_kind, "bad_json": _bad_json, "short_body": _short_body,
    "json_tensors": _json_tensors,
    "binary_tensors": _binary_tensors, "no_such_path": _no_such_path, "no_http": _no_http,
}  # fmt: skip
