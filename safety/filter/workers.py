"""Chunks to worker processes and back in order, and the rules that each process makes ready for itself."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

from safety.filter.errors import FilterError
from safety.filter.judge import Judge, Judged
from safety.filter.read import Chunk
from safety.filter.settings import Settings

# So many chunks each worker has before it: one in work and one waiting.
_AHEAD = 2
_judges: list[Judge] = []


def serial(judge: Judge) -> Callable[[Iterator[Chunk]], Iterator[tuple[Chunk, Judged]]]:
    """In this process."""

    def judging(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, Judged]]:
        for chunk in chunks:
            yield chunk, judge.judge(chunk.documents)

    return judging


def parallel(
    settings: Settings, make: Callable[[Settings], Judge], count: int
) -> Callable[[Iterator[Chunk]], Iterator[tuple[Chunk, Judged]]]:
    """In `count` processes, each of which calls `make`, a function of a module. FilterError when one ends."""

    def judging(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, Judged]]:
        # Not forked: the threads of a library here would be missing there.
        pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (settings, make))
        try:
            yield from _ordered(pool, chunks, count * _AHEAD)
        except BrokenProcessPool as error:
            raise FilterError(
                "a worker process ended: most likely the memory is too small for so many; "
                "run again with fewer --workers to go on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    return judging


def _ordered(
    pool: ProcessPoolExecutor, chunks: Iterator[Chunk], ahead: int
) -> Iterator[tuple[Chunk, Judged]]:
    waiting: deque[tuple[Chunk, Future[Judged]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, _submitted(pool, chunk)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _submitted(pool: ProcessPoolExecutor, chunk: Chunk) -> Future[Judged]:
    """Ctrl-C reaches every process of a terminal, but this one says when it is over: a process that begins
    here inherits that the signal waits.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_judge, chunk)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(settings: Settings, make: Callable[[Settings], Judge]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _judges.append(make(settings))


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its workers."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _judge(chunk: Chunk) -> Judged:
    return _judges[0].judge(chunk.documents)
