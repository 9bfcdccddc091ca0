"""A server of the OpenAI API's completions as its documentation describes them, over a toy model of pairs of
tokens, and servers that do otherwise.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tokenizers import Tokenizer

Json = dict[str, Any]


def pair_score(before: int, token: int) -> float:
    """Of a token after another, in nats."""
    return -(1 + (7 * before + 3 * token) % 23) / 4


@dataclass
class Completions:
    """`failures` are statuses that it answers with first; what is `False` it does not do."""

    tokenizer: Tokenizer
    key: str | None = None
    takes_tokens: bool = True
    logprobs: bool = True
    echo: bool = True
    honest: bool = True
    begins: int | None = None  # a token that it puts before every text
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    models: Sequence[str] = ("toy",)
    bodies: list[Json] = field(default_factory=list)

    def answer(self, body: Json) -> tuple[int, Json]:
        self.bodies.append(body)
        prompt = body["prompt"]
        if isinstance(prompt, list) and not self.takes_tokens:
            return 400, {"error": {"message": "prompt must be a string"}}
        ids = prompt if isinstance(prompt, list) else self._encoded(prompt)
        made = self._made(ids[-1], body["max_tokens"])
        shown = [*ids, *made] if body.get("echo") and self.echo else made
        choice: Json = {"index": 0, "text": self._decoded(shown), "logprobs": None}
        if self.logprobs and body.get("logprobs") is not None:
            before = [None, *shown[:-1]] if shown[: len(ids)] == ids else [ids[-1], *made[:-1]]
            scores = [
                None if u is None else self._score(u, t, ids) for u, t in zip(before, shown, strict=True)
            ]
            tokens = [self._decoded([token]) for token in shown]
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": scores}
        return 200, {"object": "text_completion", "choices": [choice]}

    def _score(self, before: int, token: int, ids: Sequence[int]) -> float:
        return pair_score(before, token) - (0 if self.honest else len(ids) / 7)

    def _encoded(self, text: str) -> list[int]:
        ids = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        return ids if self.begins is None else [self.begins, *ids]

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def _made(self, last: int, count: int) -> list[int]:
        made: list[int] = []
        for _ in range(count):
            choices = range(3, self.tokenizer.get_vocab_size())
            last = max(choices, key=lambda token: (pair_score(last, token), -token))
            made.append(last)
        return made


@contextmanager
def serving(found: Completions) -> Iterator[str]:
    """Its address, without a path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": name} for name in found.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if found.key and self.headers.get("authorization") != f"Bearer {found.key}":
                self._send(401, {"error": {"message": "no key"}})
            elif found.failures:
                status, headers = found.failures.pop(0)
                self._send(status, {"error": {"message": "later"}}, headers)
            else:
                self._send(*found.answer(body))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Says nothing."""

        def _send(self, status: int, body: Json, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
