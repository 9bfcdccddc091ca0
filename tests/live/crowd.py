"""Many requests at once, and requests that are left before their end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final, TypeVar

from tests.live.wire import Address, Reply, Wire
from tests.live.wire_grpc import GrpcWire
from tests.live.wire_http import HttpWire

T = TypeVar("T")
WIRES: Final[dict[str, Callable[[Address], Wire]]] = {"http": HttpWire, "grpc": GrpcWire}
# Generates until it is stopped.
ENDLESS: Final[dict[str, Any]] = {"ignore_eos": True, "stream": True, "temperature": 0.0}


def at_once(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all jobs, each in a thread of its own, in their order."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
        return [future.result() for future in futures]


def a_few_at_once(jobs: Iterable[Callable[[], T]], threads: int = 8) -> list[T]:
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def leave_after(address: Address, kind: str, chunks: int, **inputs: Any) -> None:
    """Starts an endless answer and drops the connection after some chunks."""
    with WIRES[kind](address) as wire, closing(wire.open(**ENDLESS, **inputs)) as replies:
        for _ in range(chunks):
            next(replies)


@contextmanager
def running(address: Address, count: int, **inputs: Any) -> Iterator[list[Generator[Reply, None, None]]]:
    """Streams that go on in the background, each past its first token; they are left at the end."""
    with ExitStack() as stack:
        streams = []
        for number in range(count):
            wire = stack.enter_context(GrpcWire(address))
            stream = wire.open(**{"text_input": f"Story {number}:", **ENDLESS, **inputs})
            stack.callback(stream.close)
            next(reply for reply in stream if reply.text)
            streams.append(stream)
        yield streams
