"""gRPC to a name with several addresses, such as a headless Service."""

from __future__ import annotations

import time

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from halimede.grpc_faults import channel_options
from halimede.testing import FakeGrpcServer, answer
from halimede.timeouts import KEEPALIVE_S

PATIENCE_S = 60.0


def test_requests_alternate_between_servers_and_skip_a_stopped_one() -> None:
    turns = [answer("a")] * 5000  # more than the test can send in PATIENCE_S
    with FakeGrpcServer(*turns) as one, FakeGrpcServer(*turns) as other:
        address = f"ipv4:{one.url},{other.url}"
        with grpc.insecure_channel(address, options=channel_options(KEEPALIVE_S)) as channel:
            stub = GRPCInferenceServiceStub(channel)
            end = time.monotonic() + PATIENCE_S
            while not (one.requests and other.requests):  # both are connected to
                assert time.monotonic() < end
                _ask(stub)
            before = len(one.requests), len(other.requests)
            for _ in range(10):
                _ask(stub)
            assert (len(one.requests) - before[0], len(other.requests) - before[1]) == (5, 5)
            one.stop()
            _wait_noticed(stub)
            before = len(one.requests), len(other.requests)
            for _ in range(10):
                _ask(stub)
            assert (len(one.requests) - before[0], len(other.requests) - before[1]) == (0, 10)


def _wait_noticed(stub: GRPCInferenceServiceStub) -> None:
    """Waits for two answers in a row: requests that were under way to the stopped server fail."""
    end, answered = time.monotonic() + PATIENCE_S, 0
    while answered < 2:
        assert time.monotonic() < end
        try:
            _ask(stub)
            answered += 1
        except grpc.RpcError:
            answered = 0


def _ask(stub: GRPCInferenceServiceStub) -> None:
    for _ in stub.ModelStreamInfer(iter([pb.ModelInferRequest(model_name="smollm2")])):
        pass
    time.sleep(0.02)
