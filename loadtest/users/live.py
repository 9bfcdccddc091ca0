"""The progress of a run: on stderr, drawn in place on a terminal, otherwise a line every five seconds; and as
a page for a browser. How a run is stopped."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from loadtest.errors import BenchError
from loadtest.ports import HOST
from loadtest.traffic.profile import Profile
from loadtest.users.request import phase_of
from loadtest.users.tally import Progress

_DRAW_S = 0.5
_LINE_S = 5.0


class Stopping:
    """The `count` of Ctrl-C and SIGTERM, so that what was measured is not lost: the first ends the load, the
    second the rest."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        self.count += 1

    def check(self) -> None:
        """Before there is anything to save."""
        if self.count:
            raise KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[Stopping]:
    signals = Stopping()
    before = {number: signal.signal(number, signals.add) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def repeatedly(look: Callable[[], bool], every_s: float) -> Iterator[None]:
    """Calls `look` in a thread of its own, at once and then every `every_s`, until the `with` block ends or
    it returns false."""
    over = threading.Event()

    def run() -> None:
        while look() and not over.wait(every_s):
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def words(profile: Profile, now_s: float, progress: Progress) -> tuple[str, str]:
    """The phase of the run, and its counts so far."""
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
def shown(profile: Profile, page: list[str]) -> Iterator[Callable[[float, Progress], None]]:
    """A function to call with each progress; `page` gets the lines for the browser."""
    next_s = 0.0
    is_terminal = sys.stderr.isatty()

    def watch(now_s: float, progress: Progress) -> None:
        nonlocal next_s
        page[:] = head, body = words(profile, now_s, progress)
        if now_s < next_s:
            return
        if is_terminal:
            next_s = now_s + _DRAW_S
            bar = ProgressBar(profile.total_s, min(now_s, profile.total_s), width=40)
            live.update(Group(Text(head), bar, Text(body)), refresh=True)
        else:
            next_s = now_s + _LINE_S
            print(f"{head}: {body}", file=sys.stderr, flush=True)

    live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
    with live if is_terminal else nullcontext():
        yield watch


@contextmanager
def web(port: int | None) -> Iterator[list[str]]:
    """Lines that a page of the loopback interface shows, read again every second; without a port nobody
    does."""
    lines = ["the run has not begun"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = f'<!doctype html><meta http-equiv="refresh" content="1"><pre>{escape(chr(10).join(lines))}'
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    if port is None:
        yield lines
        return
    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise BenchError(f"--web {port}: {error.strerror}") from error
    with server:
        threading.Thread(target=server.serve_forever, name="web", daemon=True).start()
        try:
            yield lines
        finally:
            server.shutdown()
