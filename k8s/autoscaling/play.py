"""Sends planned requests to a real server when they are due, with little CPU of its own: it shares the cores.

The load test's generator measures more and costs more; on the server's own two cores that slows the server.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from halimede import Client, HalimedeError
from k8s.autoscaling.replica import Request

_WORDS: Final = ("time", "year", "people", "way", "day", "thing", "life", "world", "school", "state", "group")
# The number that a prompt begins with, so that the prefix cache has none of them.
_NUMBER_TOKENS: Final = 9


def prompt(rng: random.Random, tokens: int) -> str:
    """About so many tokens; no two begin alike."""
    words = (rng.choice(_WORDS) for _ in range(max(1, tokens - _NUMBER_TOKENS)))
    return f"{rng.randrange(10**8, 10**9)} " + " ".join(words)


def play(client: Client, planned: Sequence[Request], seed: int = 11) -> list[Request]:
    """The same requests with the times that the server gave them. Raises what a request did."""
    rng = random.Random(seed)
    texts = [prompt(rng, one.prompt) for one in planned]
    began = time.monotonic()
    played = [replace(one) for one in planned]

    def send(turn: int) -> None:
        request = played[turn]
        time.sleep(max(0.0, began + request.at_s - time.monotonic()))
        for _ in client.stream(texts[turn], max_tokens=request.output, ignore_eos=True, temperature=0.0):
            request.last_s = time.monotonic() - began
            request.first_s = request.first_s or request.last_s
        request.end_s = request.last_s

    together(len(played), send)
    return played


def together(count: int, work: Callable[[int], None]) -> None:
    """Each in a thread. Raises what one of them did."""
    faults: list[HalimedeError] = []

    def guarded(turn: int) -> None:
        try:
            work(turn)
        except HalimedeError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(turn,)) for turn in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
