"""A run as it goes on, on stderr: in place on a terminal, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from loadtest.traffic.profile import Profile
from loadtest.users.tally import Progress
from loadtest.users.tape import phase_of

_DRAW_S = 0.5
_LINE_S = 5.0


class Shown:
    """`live` is None where nobody looks."""

    def __init__(self, profile: Profile, live: Live | None) -> None:
        self._profile = profile
        self._live = live
        self._next_s = 0.0

    def watch(self, now_s: float, progress: Progress) -> None:
        if now_s < self._next_s:
            return
        head, body = words(self._profile, now_s, progress)
        if self._live is None:
            self._next_s = now_s + _LINE_S
            print(f"{head}: {body}", file=sys.stderr, flush=True)
        else:
            self._next_s = now_s + _DRAW_S
            bar = ProgressBar(self._profile.total_s, min(now_s, self._profile.total_s), width=40)
            self._live.update(Group(Text(head), bar, Text(body)), refresh=True)


def words(profile: Profile, now_s: float, progress: Progress) -> tuple[str, str]:
    """Where the run is, and what has come of it."""
    phase = {"warmup": "warming up", "measure": "measuring", "drain": "draining"}[phase_of(profile, now_s)]
    head = f"{profile.name}: {phase}, {now_s:.0f} s of {profile.total_s:.0f}"
    if phase == "draining":
        head = f"{profile.name}: waiting for {progress.open} open requests"
    ttft = (
        "-" if progress.ttft_s is None else "{:.0f} / {:.0f} ms".format(*(1e3 * t for t in progress.ttft_s))
    )
    errors = ", ".join(f"{name} {count}" for name, count in progress.errors.items()) or "no"
    return head, (
        f"{progress.begun} begun, {progress.open} open, {progress.ended} ended,"
        f" {progress.tokens_per_s:.0f} tokens/s, TTFT p50 / p99 {ttft}, {errors} errors"
    )


@contextmanager
def shown(profile: Profile) -> Iterator[Shown]:
    if not sys.stderr.isatty():
        yield Shown(profile, None)
        return
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield Shown(profile, live)
