"""What tracing costs: tokens a second of 8 streams at several servers, in turn.

Start the servers first, alike but for their --trace-url, then

  python -m k8s.tracing_cost off=localhost:8001 on=localhost:9001 --rounds 20

Each round asks every server once, in alternating order, and compares with the first one of the same round.
Exit codes: 0 measured, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from halimede import Client

STREAMS = 8
TOKENS = 96


def tokens_per_second(client: Client) -> float:
    def ask(number: int) -> int:
        chunks = client.stream(f"Story number {number} begins", max_tokens=TOKENS, ignore_eos=True)
        return sum(chunk.num_output_tokens or 0 for chunk in chunks)

    began = time.monotonic()
    with ThreadPoolExecutor(STREAMS) as crowd:
        total = sum(crowd.map(ask, range(STREAMS)))
    return total / (time.monotonic() - began)


def measure(clients: Mapping[str, Client], rounds: int) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {name: [] for name in clients}
    for number in range(-1, rounds):  # the first one warms up
        for name in list(clients)[:: -1 if number % 2 else 1]:
            rate = tokens_per_second(clients[name])
            if number >= 0:
                seen[name].append(rate)
    return seen


def lines(seen: Mapping[str, list[float]]) -> list[str]:
    first = next(iter(seen.values()))
    found = []
    for name, rates in seen.items():
        ratios = [rate / other for rate, other in zip(rates, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found.append(
            f"{name}: median {statistics.median(rates):.0f} tokens/s, {min(rates):.0f} to {max(rates):.0f}; "
            f"ratio {middle:.3f}, quartiles {low:.3f} to {high:.3f}"
        )
    return found


def _server(text: str) -> tuple[str, str]:
    name, found, url = text.partition("=")
    if not (name and found and url):
        raise argparse.ArgumentTypeError(f"{text!r}: must be NAME=URL, such as off=localhost:8001")
    return name, url


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.tracing_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("servers", type=_server, nargs="+", metavar="NAME=URL")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="at least 2; 20")
    parser.add_argument("--model", default="smollm2", metavar="NAME")
    found = parser.parse_args()
    if found.rounds < 2:
        parser.error(f"--rounds {found.rounds}: must be at least 2")
    with ExitStack() as stack:
        clients = {name: stack.enter_context(Client(url, model=found.model)) for name, url in found.servers}
        print(*lines(measure(clients, found.rounds)), sep="\n")


if __name__ == "__main__":
    main()
