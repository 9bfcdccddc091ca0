"""The three Triton backends together, as an ensemble, on a fake of Triton's Python API."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core.errors import Unavailable
from engine.runners.kernels import KernelUse, Why
from tests.fakes.ensemble import CONTEXT, VOCAB, Ensemble
from tests.fakes.loop import ToyModel
from tests.fakes.triton import (
    InferenceRequest,
    InputTensor,
    Response,
    Sender,
    Tensor,
    TritonError,
    fake_triton,
)
from tests.models.artifact import byte_tokenizer


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = fake_triton()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def ensemble(tmp_path: Path, triton: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ensemble]:
    def load(step: str) -> Any:
        name = f"backends.llm_{step}.model"
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    one = Ensemble(tmp_path, load, monkeypatch)
    yield one
    one.tokenizer.finalize()
    one.engine.finalize()
    one.detokenizer._engine._socket.close()
    for step in one.modules.values():
        sys.modules.pop(step.__name__, None)


def greedy_text(prompt: bytes, count: int) -> str:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(prompt.decode()).ids
    tokens = ToyModel(VOCAB).greedy(ids, count)
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.mark.parametrize(
    ("kernels", "line"),
    [
        (KernelUse("avx2"), "the kernels, level avx2"),
        (KernelUse(None, Why.OFF, "the setting kernels is off"), "ONNX Runtime: the setting kernels is off"),
    ],
)
def test_the_log_says_what_computes(
    ensemble: Ensemble,
    triton: types.ModuleType,
    capsys: pytest.CaptureFixture[str],
    kernels: KernelUse,
    line: str,
) -> None:
    ensemble.modules["engine"]._tell("toy", kernels)
    assert capsys.readouterr().err == f"llm_engine: toy runs on {line}\n"
    assert not vars(triton)["logged"]


def test_kernels_that_a_model_could_run_on_and_does_not_are_a_warning(
    ensemble: Ensemble, triton: types.ModuleType
) -> None:
    ensemble.modules["engine"]._tell("toy", KernelUse(None, Why.COMPILED, "x.so has not been compiled"))
    assert vars(triton)["logged"] == [
        "llm_engine: toy runs on ONNX Runtime, which is slower: x.so has not been compiled"
    ]


def test_a_model_on_a_gpu_is_said_to_be_experimental(ensemble: Ensemble, triton: types.ModuleType) -> None:
    ensemble.modules["engine"]._warn_experimental({"name": "toy", "device": "cuda:0"})
    assert vars(triton)["logged"] == ["llm_engine: toy runs on cuda:0, which is experimental: docs/gpu.md"]


def test_a_bare_prompt_gets_one_response(ensemble: Ensemble) -> None:
    (answer,) = ensemble.ask(text_input="Hi", ignore_eos=True)
    assert answer.names == {"text_output", "finish_reason"}
    assert answer["text_output"].decode() == greedy_text(b"Hi", 12)
    assert answer["finish_reason"] == b"length"


def test_a_streamed_answer_is_the_unary_one(ensemble: Ensemble) -> None:
    wanted: dict[str, Any] = {"text_input": "Hi", "ignore_eos": True, "max_tokens": 40}
    chunks = ensemble.ask(stream=True, return_num_output_tokens=True, **wanted)
    (whole,) = ensemble.ask(stream=False, return_num_output_tokens=True, **wanted)
    assert b"".join(chunk["text_output"] for chunk in chunks) == whole["text_output"]
    assert sum(chunk["num_output_tokens"] for chunk in chunks) == whole["num_output_tokens"] == 40
    assert [chunk["finish_reason"] for chunk in chunks] == [b""] * (len(chunks) - 1) + [b"length"]


def test_a_chat_is_rendered_and_counted(ensemble: Ensemble) -> None:
    messages = json.dumps([{"role": "user", "content": "Hi<|im_end|>"}])
    (answer,) = ensemble.ask(messages=messages, return_num_input_tokens=True)
    rendered = (
        "<|im_start|>user\nHi<|im_end|><|im_end|>\n<|im_start|>assistant"  # jinja2 cuts the last newline
    )
    as_text = len("<|im_end|>") - 1
    assert answer["num_input_tokens"] == len(byte_tokenizer().encode(rendered).ids) + as_text


def test_logprobs_are_json(ensemble: Ensemble) -> None:
    (answer,) = ensemble.ask(text_input="Hi", num_logprobs=2, max_tokens=3, ignore_eos=True)
    entries = json.loads(answer["logprobs"])
    assert [len(entry["top"]) for entry in entries] == [2, 2, 2]
    assert all(set(entry) == {"id", "token", "bytes", "logprob", "top"} for entry in entries)


def test_a_stop_sequence_is_not_part_of_the_text(ensemble: Ensemble) -> None:
    text = greedy_text(b"Hi", 12)
    word = next(letter for letter in text[3:] if letter != "�")
    (answer,) = ensemble.ask(text_input="Hi", ignore_eos=True, stop_words=["zzzz", word])
    assert answer["text_output"].decode() == text[: text.index(word)]
    assert answer["finish_reason"] == b"stop_sequence"


def test_the_largest_seed_arrives(ensemble: Ensemble) -> None:
    texts = {
        ensemble.ask(text_input="Hi", seed=2**64 - 1, temperature=1.0)[0]["text_output"] for _ in range(2)
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"text_input": ""}, "INVALID_ARG: text_input: empty"),
        ({"text_input": b"\xff"}, "INVALID_ARG: text_input: not UTF-8"),
        ({"text_input": "x", "temperature": float("nan")}, "INVALID_ARG: temperature: nan, must be"),
        ({"text_input": "x", "stop_words": [""]}, "INVALID_ARG: stop_words[0]: 0 bytes"),
        ({"messages": "[" * 50_000}, "INVALID_ARG: messages: "),
        ({"messages": '[{"role": "user", "content": "\\ud800"}]'}, "INVALID_ARG: messages[0].content: "),
        ({}, "INVALID_ARG: text_input, messages: neither"),
    ],
)
def test_bad_input_is_an_error_of_the_first_step(
    ensemble: Ensemble, inputs: dict[str, Any], problem: str
) -> None:
    response = ensemble.tokenize(**inputs)
    assert response.error
    assert str(response.error).startswith(problem)
    assert response.error.code == TritonError.INVALID_ARG


def test_a_bad_request_does_not_hurt_those_it_came_with(ensemble: Ensemble) -> None:
    requests = [InferenceRequest([InputTensor("text_input", text)]) for text in ("Hi", b"\xff", "Ho")]
    responses = ensemble.tokenizer.execute(requests)
    assert [response.error is None for response in responses] == [True, False, True]


def test_what_the_first_step_refuses_is_counted(ensemble: Ensemble, triton: types.ModuleType) -> None:
    for _ in range(2):
        ensemble.tokenize(text_input="")
    metrics = triton.MetricFamily.made["halimede_requests_rejected_total"].metrics
    (mine,) = [metric for metric in metrics if metric.labels["model"] == "toy_tokenizer"]
    assert (mine.labels["reason"], mine.total) == ("invalid_arg", 2)


def test_an_unknown_input_is_refused(ensemble: Ensemble) -> None:
    response = ensemble.tokenize({"max_token": 5}, text_input="Hi")
    assert str(response.error).startswith("INVALID_ARG: max_token: unknown input")


def test_an_input_that_is_sent_as_a_parameter_is_refused(ensemble: Ensemble) -> None:
    response = ensemble.tokenize({"max_tokens": 5}, text_input="Hi")
    wanted = "INVALID_ARG: max_tokens: sent as a parameter, must be sent as an input tensor"
    assert str(response.error) == wanted


@pytest.fixture
def held(ensemble: Ensemble) -> Iterator[threading.Event]:
    """Long prompts wait for it."""
    gate = threading.Event()
    ensemble.tokenizer._long.put(0, lambda: gate.wait(30))
    yield gate
    gate.set()


def long_request(*others: InputTensor) -> InferenceRequest:
    """Long by what is no prompt, so that the small context holds it."""
    bias = InputTensor("logit_bias", b'{"1": 0' + b" " * 10_000 + b"}")
    return InferenceRequest([InputTensor("text_input", b"Hello"), bias, *others])


def test_a_short_request_does_not_wait_for_long_ones(ensemble: Ensemble, held: threading.Event) -> None:
    first, second = long_request(), long_request()
    short = InferenceRequest([InputTensor("text_input", b"Hi")])
    responses = ensemble.tokenizer.execute([first, short, second])
    assert [responses[0], responses[2]] == [None, None]
    assert responses[1].error is None
    assert first.sender.sent.empty()
    held.set()
    for request in (first, second):
        response, final = request.sender.sent.get(timeout=30)
        assert final
        assert response.error is None
        (ids,) = response.output_tensors[0].as_numpy()
        assert ids.tolist() == byte_tokenizer().encode("Hello").ids


def test_long_requests_that_are_wrong_or_left_get_their_error(
    ensemble: Ensemble, triton: types.ModuleType, held: threading.Event
) -> None:
    wrong, left = long_request(InputTensor("top_p", 7.0)), long_request()
    left.sender.cancelled = True
    large = InferenceRequest([InputTensor("text_input", b"x" * 10_000)])
    assert ensemble.tokenizer.execute([wrong, left, large]) == [None, None, None]
    held.set()
    answers = [request.sender.sent.get(timeout=30) for request in (wrong, left, large)]
    assert [final for _, final in answers] == [True, True, True]
    expected = ("INVALID_ARG: top_p: 7", "CANCELLED: request: by", "INVALID_ARG: text_input: 10000 bytes, ")
    for (response, _), start in zip(answers, expected, strict=True):
        assert str(response.error).startswith(start)
    metrics = triton.MetricFamily.made["halimede_requests_rejected_total"].metrics
    assert sum(metric.total for metric in metrics if metric.labels["model"] == "toy_tokenizer") == 2


def test_a_waiting_request_is_answered_before_the_tokenizer_step_ends(
    ensemble: Ensemble, held: threading.Event
) -> None:
    request = long_request()
    assert ensemble.tokenizer.execute([request]) == [None]
    held.set()
    ensemble.tokenizer.finalize()
    assert request.sender.sent.get_nowait()[1]


def test_parameters_that_are_not_utf8_are_refused(
    ensemble: Ensemble, triton: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = InferenceRequest([InputTensor("text_input", b"Hi")])
    monkeypatch.setattr(asked, "parameters", b'{"a\xff": 1}'.decode)  # as pybind11 decodes them
    (response,) = ensemble.tokenizer.execute([asked])
    assert str(response.error).startswith("INVALID_ARG: parameters: not UTF-8 at byte 3")
    assert not vars(triton)["logged"]


def test_a_prompt_longer_than_the_context_is_an_error_of_the_engine(ensemble: Ensemble) -> None:
    (answer,) = ensemble.ask(text_input="x" * CONTEXT)
    assert str(answer.error).startswith("INVALID_ARG: prompt: 96 tokens, must be at most 95 ")


@pytest.mark.parametrize("how", ["parameter", "request"])
def test_a_timeout_becomes_a_deadline(ensemble: Ensemble, how: str) -> None:
    tokenized = (
        ensemble.tokenize({"timeout": 5000}, text_input="Hi")
        if how == "parameter"
        else ensemble.tokenize(timeout=5000, text_input="Hi")
    )
    (written,) = json.loads(tokenized["request"])
    envelope = written["request"]
    assert envelope["timeout_us"] == 5000
    assert envelope["deadline_ns"] - envelope["arrival_ns"] == 5_000_000


def test_a_deadline_that_has_passed_is_an_error(ensemble: Ensemble) -> None:
    (answer,) = ensemble.ask({"timeout": 1}, text_input="Hi")
    assert answer.error
    assert str(answer.error).startswith("DEADLINE_EXCEEDED: timeout: 1 us passed after ")
    assert answer.error.code == TritonError.CANCELLED


def test_a_cancel_seen_by_the_detokenizer_ends_the_request(ensemble: Ensemble) -> None:
    tokenized = ensemble.tokenize(text_input="Hi", stream=True, ignore_eos=True, max_tokens=90)
    sender = ensemble.submit(tokenized)
    last = ensemble.answers(sender, cancelled=True)[-1]
    if last.error:  # else the answer was complete before the signal came
        assert str(last.error) == "CANCELLED: request: by the client"
    assert ensemble.engine._service.loop.keys() == []


@pytest.mark.parametrize("chunk", [b"", b"nonsense", b'{"handle":"halimede-0-x/1"}', b'{"handle":"\xff/1"}'])
def test_the_detokenizer_never_returns_an_error(
    ensemble: Ensemble, triton: types.ModuleType, chunk: bytes
) -> None:
    answer = ensemble.detokenize(Response([Tensor("chunk", np.array([[chunk]], np.object_))]))
    assert answer.error is None
    assert answer["text_output"] == answer["finish_reason"] == b""
    assert vars(triton)["logged"][0].startswith("llm_detokenizer: ")


def test_what_the_detokenizer_logs_of_a_chunk_has_nothing_of_the_answer(
    ensemble: Ensemble, triton: types.ModuleType
) -> None:
    table = ensemble.engine._table.encode()
    for spoilt in (b"my secret \xff", b'my secret"', b'my secret","ids":[5'):
        chunk = b'{"table":"' + table + b'","text":"' + spoilt + b'"}'
        ensemble.detokenize(Response([Tensor("chunk", np.array([[chunk]], np.object_))]))
    logged = [line for line in vars(triton)["logged"] if "cannot reach the engine" not in line]
    assert [line.split("\n")[0] for line in logged] == [
        "llm_detokenizer: UnicodeDecodeError",
        "llm_detokenizer: JSONDecodeError",
        "llm_detokenizer: JSONDecodeError",
    ]
    assert not any("secret" in line for line in logged)


def test_a_chunk_that_cannot_be_read_ends_its_request(ensemble: Ensemble) -> None:
    ensemble.runner.calls.clear()
    tokenized = ensemble.tokenize(text_input="Hi", stream=True, ignore_eos=True, max_tokens=90)
    sender = ensemble.submit(tokenized)
    response, final = sender.sent.get(timeout=30)
    assert not final
    broken = response["chunk"].replace(b'"ids":', b'"idz":')
    ensemble.detokenize(Response([Tensor("chunk", np.array([[broken]], np.object_))]))
    last = ensemble.answers(sender)[-1]
    if last.error:  # else the answer was complete before the signal came
        assert str(last.error).startswith("INTERNAL: detokenizer: could not decode a chunk")


def direct(envelope: str, ids: list[int]) -> InferenceRequest:
    return InferenceRequest(
        [
            Tensor("input_ids", np.array([ids], np.int32)),
            Tensor("request", np.array([[envelope.encode()]], np.object_)),
        ]
    )


@pytest.mark.parametrize(
    ("envelope", "ids", "problem"),
    [
        ("nonsense", [1], "INVALID_ARG: request: nonsense, not JSON"),
        ('{"sampling":{"max_tokens":3}}', [VOCAB], f"INVALID_ARG: input_ids: {VOCAB}, must be"),
        ('{"sampling":{"max_tokens":3}}', [-1], "INVALID_ARG: input_ids: -1, must be"),
        ('{"sampling":{"max_tokens":3,"stop_words":["\\ud800"]}}', [1], "INVALID_ARG: "),
        ('{"sampling":{"max_tokens":3},"deadline_ns":"x"}', [1], "INVALID_ARG: deadline_ns: x, must be"),
        ('{"sampling":{"max_tokens":500}}', [1], "INVALID_ARG: max_tokens: 500, must be at most 96"),
    ],
)
def test_the_engine_step_called_directly_refuses_what_is_wrong(
    ensemble: Ensemble, envelope: str, ids: list[int], problem: str
) -> None:
    well = direct('{"sampling":{"max_tokens":3}}', [1])
    bad = direct(envelope, ids)
    ensemble.engine.execute([bad, well])
    response, final = bad.sender.sent.get(timeout=30)
    assert final
    assert str(response.error).startswith(problem)
    assert ensemble.answers(well.sender)[-1].error is None


def test_the_engine_step_describes_itself_in_one_final_chunk(ensemble: Ensemble) -> None:
    request = direct('{"describe": true}', [0])
    ensemble.engine.execute([request])
    response, final = request.sender.sent.get(timeout=30)
    assert final
    told = json.loads(response["chunk"])["describe"]
    assert (told["name"], told["slots"], told["max_context"], told["device"]) == ("toy", 2, CONTEXT, "cpu")


def test_a_direct_request_is_cancelled_without_a_detokenizer(ensemble: Ensemble) -> None:
    request = direct('{"sampling":{"max_tokens":90,"ignore_eos":true}}', [1])
    request.sender.cancelled = True
    ensemble.engine.execute([request])
    last = ensemble.answers(request.sender)[-1]
    if last.error:  # else the answer was complete before anybody looked
        assert str(last.error) == "CANCELLED: request: by the client"
    for _ in range(2000):
        ensemble.engine._cancel_direct()
        if not ensemble.engine._direct:
            return
    raise AssertionError("it is watched for ever")


@pytest.mark.parametrize(
    "entry",
    [
        {"ids": 5},
        {"ids": ["1"]},
        {"ids": [True]},
        {"ids": {"1": 1}},
        {"ids": None},
        {"fault": 5},
        {"fault": ["top_p"]},
        {"fault": ["top_p", 7]},
        {"fault": "ab"},
        {"fault": None},
        {"request": 5},
        {},
    ],
)
def test_a_request_that_no_tokenizer_wrote_gets_an_error_and_the_others_of_its_call_run(
    ensemble: Ensemble, entry: dict[str, Any]
) -> None:
    good = InferenceRequest(ensemble.tokenize(text_input=b"hello", max_tokens=2).output_tensors)
    requests = [direct(json.dumps([{"for": ensemble.engine._key, **entry}]), [1, 2]), good]
    assert ensemble.engine.execute(requests) is None
    refused, final = requests[0].sender.sent.get(timeout=30)
    assert final
    assert str(refused.error).startswith("INVALID_ARG: request: ")
    assert [answer.error for answer in ensemble.answers(good.sender)][-1] is None


def test_a_request_with_an_unforeseen_fault_gets_an_error_and_the_others_of_its_call_run(
    ensemble: Ensemble, triton: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the engine step and in the tokenizer step: no error of any kind leaves a client waiting."""
    good = [
        InferenceRequest(ensemble.tokenize(text_input=b"hello", max_tokens=2).output_tensors) for _ in "ab"
    ]
    empty = InferenceRequest([])
    assert ensemble.engine.execute([good[0], empty, good[1]]) is None
    answer, final = empty.sender.sent.get(timeout=30)
    assert final
    assert str(answer.error).startswith("INTERNAL: request: could not be read (StopIteration)")
    for request in good:
        assert ensemble.answers(request.sender)[-1].error is None
    assert "StopIteration" in vars(triton)["logged"][-1]

    asked = [InferenceRequest([InputTensor("text_input", b"my secret")]) for _ in "ab"]
    monkeypatch.setattr(asked[0], "parameters", lambda: "[")
    first, second = ensemble.tokenizer.execute(asked)
    assert str(first.error).startswith("INTERNAL: request: could not be read (JSONDecodeError)")
    assert second.error is None
    assert not any("secret" in line for line in vars(triton)["logged"])


def test_a_request_that_comes_while_others_are_looked_at_stays_watched(ensemble: Ensemble) -> None:
    """One that is submitted between the two looks is not taken for one that has ended."""
    ensemble.engine._stopping.set()
    ensemble.engine._housekeeper.join(30)  # before anything changes: it looks too
    loop = ensemble.engine._service.loop
    keys = loop.keys
    ensemble.engine._direct[10**6] = ensemble.modules["engine"].TritonResponder(Sender(), "")
    newcomer = ensemble.modules["engine"].TritonResponder(Sender(), "")

    def slow_keys() -> list[int]:
        found: list[int] = keys()
        ensemble.engine._direct[10**6 + 1] = newcomer  # it comes now: not in what was found
        return found

    loop.keys = slow_keys
    ensemble.engine._cancel_direct()
    assert list(ensemble.engine._direct) == [10**6 + 1]


def test_after_finalize_the_engine_refuses(ensemble: Ensemble) -> None:
    request = direct('{"sampling":{"max_tokens":3}}', [1])
    ensemble.engine._service.loop.stop()
    ensemble.engine.execute([request])
    response, final = request.sender.sent.get(timeout=30)
    assert final
    assert response.error
    assert response.error.code == TritonError.UNAVAILABLE
    assert str(response.error).startswith(Unavailable.code)
