"""A server of the OpenAI API that echoes a prompt with its log-probabilities at /v1/completions.

Not every server that takes `echo` and `logprobs` means what the API says. So a server is tried before it is
asked: what it echoes must have the tokens that were sent, the same scores whatever follows them, and the
scores with which the server generates.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urldefrag, urlsplit

import httpx

from safety.evaluate.model import Completion, ModelError, Window
from safety.sources.tokens import Texts

KEY: Final = "HALIMEDE_API_KEY"
_TRIES: Final = 5
_LONGEST_WAIT_S: Final = 30.0
_TIMEOUT_S: Final = 300.0
_AT_ONCE: Final = 8
# In nats, of a token: rounding in 16 bits differs from batch to batch by less, another token by far more.
_TOLERANCE: Final = 0.1
# Where a server does not say how long a text may be.
_POSITIONS: Final = 2048
_SAMPLE: Final = (
    "The library opens at nine. Visitors leave their coats at the desk and take a seat by the window."
)
_AFTER: Final = " Some of them read until the evening."
Json = dict[str, Any]


def open_server(
    address: str,
    tokenizer: Path | None,
    environ: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> Server:
    """`address` may end in /v1 and in # with the name of one of its models. Raises ModelError for a server
    that does not answer as it must.
    """
    url, name = urldefrag(address)
    base = url.rstrip("/").removesuffix("/v1")
    if tokenizer is None:
        raise ModelError(f"{base}: needs --tokenizer, the model's tokenizer.json or the folder with it")
    texts = read_tokenizer(tokenizer)
    headers = {"Authorization": f"Bearer {environ[KEY]}"} if environ.get(KEY) else {}
    line = Line(httpx.Client(base_url=base, headers=headers, timeout=_TIMEOUT_S), base, sleep)
    try:
        return Server(line, _named(line, name), texts)
    except BaseException:
        line.close()
        raise


def read_tokenizer(path: Path) -> Texts:
    """A tokenizer.json with what lies beside it: the special tokens and the chat template. Raises ModelError
    for what cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    try:
        text = (path / "tokenizer.json" if path.is_dir() else path).read_text("utf-8")
        settings = _json(folder / "tokenizer_config.json")
        special = _json(folder / "manifest.json").get("tokenizer", {}).get("special_tokens", {})
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"--tokenizer {path}: cannot be read: {error}") from error
    special |= {name: _content(settings[name]) for name in settings if name.endswith("_token")}
    template = folder / "chat_template.jinja"
    found = template.read_text("utf-8") if template.is_file() else settings.get("chat_template")
    return Texts(
        text, {name: one for name, one in special.items() if one}, found if isinstance(found, str) else None
    )


def _json(path: Path) -> Json:
    found: Json = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _content(token: Any) -> str:
    """Written as a text, or as an object with its text."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


class Line:
    """Requests to one server, repeated where it is busy: it has an error of its own, or refuses for now."""

    def __init__(self, client: httpx.Client, url: str, sleep: Callable[[float], None]) -> None:
        self._client, self.url, self._sleep = client, url, sleep

    def get(self, path: str) -> Json:
        return self._asked("GET", path, None)

    def post(self, path: str, body: Json) -> Json:
        """Raises ModelError for a refusal, and after the last try; Refused for a request that is wrong."""
        return self._asked("POST", path, body)

    def close(self) -> None:
        self._client.close()

    def _asked(self, method: str, path: str, body: Json | None) -> Json:
        problem = ""
        for tried in range(_TRIES):
            wait = min(0.5 * 2**tried, _LONGEST_WAIT_S)
            try:
                response = self._client.request(method, path, json=body)
            except httpx.TransportError as error:
                problem = f"cannot be reached ({error!r})"
            else:
                if response.status_code != 429 and response.status_code < 500:
                    return self._read(response, path)
                problem = f"answered {response.status_code}: {_shown(response.text)}"
                wait = _asked_to_wait(response) or wait
            if tried < _TRIES - 1:
                self._sleep(wait)
        raise ModelError(f"{self.url}{path}: {problem}, {_TRIES} times")

    def _read(self, response: httpx.Response, path: str) -> Json:
        if response.is_error:
            hint = f"; the key is read from {KEY}" if response.status_code in (401, 403) else ""
            raise Refused(f"{self.url}{path}: answered {response.status_code}: {_shown(response.text)}{hint}")
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ModelError(f"{self.url}{path}: answered no JSON object: {_shown(response.text)}")
        return found


class Refused(ModelError):
    """A request that the server will not take however often it is sent."""


def _asked_to_wait(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return min(float(text), _LONGEST_WAIT_S) if text.isdecimal() else None


def _shown(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= 200 else f"{one[:200]}…"


def _named(line: Line, name: str) -> Json:
    """The entry of the model in the server's list: the only one, or the one with this name."""
    listed = [one for one in line.get("/v1/models").get("data") or [] if isinstance(one, dict)]
    names = [str(one.get("id")) for one in listed]
    if not name and len(listed) == 1:
        return listed[0]
    if name not in names:
        raise ModelError(f"{line.url}: serves {', '.join(names) or 'no model'}: write {line.url}#NAME of one")
    return listed[names.index(name)]


@dataclass(frozen=True, slots=True)
class Echo:
    """What the API calls `logprobs` of a choice; the first token of a prompt has none."""

    tokens: tuple[str, ...]
    scores: tuple[float | None, ...]


def read_echo(answer: Json, where: str) -> Echo:
    """Raises ModelError for an answer without log-probabilities."""
    try:
        found = answer["choices"][0]["logprobs"]
        tokens, scores = tuple(found["tokens"]), tuple(found["token_logprobs"])
    except (KeyError, IndexError, TypeError):
        raise ModelError(
            f"{where}: answers no log-probabilities (choices[0].logprobs.token_logprobs), they are needed"
        ) from None
    if len(tokens) != len(scores):
        raise ModelError(f"{where}: answered {len(scores)} log-probabilities of {len(tokens)} tokens")
    if not all(score is None or (isinstance(score, int | float) and score <= 1e-3) for score in scores):
        raise ModelError(f"{where}: answered log-probabilities above 0")
    return Echo(tokens, scores)


class Server:
    def __init__(self, line: Line, entry: Json, texts: Texts) -> None:
        """Tries the server; raises ModelError for what it does not do, or does otherwise."""
        self._line, self._texts = line, texts
        self._model = str(entry["id"])
        self.name = f"{self._model} at {urlsplit(line.url).netloc}"
        longest = entry.get("max_model_len")  # vLLM says so
        self.positions: int = longest if isinstance(longest, int) else _POSITIONS
        self._threads = ThreadPoolExecutor(_AT_ONCE)
        self._as_text = False
        self._as_text = not self._takes_tokens()
        self._try()
        self.facts: Mapping[str, str] = {
            "source": f"server {line.url}",
            "model": self._model,
            "prompts": "text" if self._as_text else "token ids",
        }

    @property
    def prefix(self) -> int:
        return self._texts.prefix

    def encode(self, text: str) -> list[int]:
        return self._texts.encode(text)

    def chat(self, message: str) -> list[int]:
        return self._texts.chat(message)

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        return self._threads.map(self._scored, windows)

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:
        return self._threads.map(self._completed, prompts)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._line.close()

    def _scored(self, window: Window) -> list[float]:
        scores = self._echoed(window.tokens)[window.start :]
        if any(score is None or not math.isfinite(score) for score in scores):
            raise ModelError(f"{self.name}: answered a token without a log-probability, a number is needed")
        return [float(score) for score in scores if score is not None]

    def _completed(self, prompt: Completion) -> str:
        body = self._body(prompt.tokens, prompt.max_tokens)
        body |= {"temperature": 0} if prompt.seed is None else {"temperature": 1, "seed": prompt.seed}
        answer = self._line.post("/v1/completions", body)
        try:
            return str(answer["choices"][0]["text"])
        except (KeyError, IndexError, TypeError):
            raise ModelError(f"{self.name}: answered no text (choices[0].text)") from None

    def _echoed(self, tokens: Sequence[int]) -> tuple[float | None, ...]:
        """Of each token, the first of which may have none. A server may put its beginning token before a
        text, and its own next token after the last.
        """
        body = self._body(tokens, 1) | {"echo": True, "logprobs": 1, "temperature": 0}
        echo = read_echo(self._line.post("/v1/completions", body), self.name)
        extra = len(echo.tokens) - len(tokens)
        if extra < 0:
            raise ModelError(
                f"{self.name}: ignores echo: {len(echo.tokens)} tokens came back for {len(tokens)} sent"
            )
        before = 0 if extra < 2 or not self._as_text else extra - 1
        if extra - before > 1 or before > 1:
            text = _shown(self._texts.decode(list(tokens)))
            raise ModelError(
                f"{self.name}: counts {len(echo.tokens)} tokens, not {len(tokens)} and one more, of {text!r}:"
                " its tokenizer is another; check --tokenizer"
            )
        return echo.scores[before : before + len(tokens)]

    def _body(self, tokens: Sequence[int], max_tokens: int) -> Json:
        prompt = self._texts.decode(list(tokens)) if self._as_text else list(tokens)
        return {"model": self._model, "prompt": prompt, "max_tokens": max_tokens}

    def _takes_tokens(self) -> bool:
        try:
            self._line.post("/v1/completions", self._body(self.encode(_SAMPLE), 1))
        except Refused:
            return False
        return True

    def _try(self) -> None:
        """The same tokens scored twice, with and without more after them, and as the server generates."""
        tokens = [self.prefix, *self.encode(_SAMPLE)]
        longer = [*tokens, *self.encode(_AFTER)]
        short = self._echoed(tokens)
        self._require_same(short, self._echoed(longer)[: len(tokens)], "with more text after them")
        body = self._body(tokens, 4) | {"logprobs": 1, "temperature": 0}
        answer = self._line.post("/v1/completions", body)
        made = read_echo(answer, self.name)
        again = self.encode(self._texts.decode(tokens) + str(answer["choices"][0].get("text", "")))
        # Text that is cut within a character, or otherwise than the tokens were made, says nothing.
        if again[: len(tokens)] == tokens and len(again) == len(tokens) + len(made.tokens):
            self._require_same(
                [None, *made.scores], [None, *self._echoed(again)[len(tokens) :]], "when it generates them"
            )

    def _require_same(self, one: Sequence[float | None], other: Sequence[float | None], how: str) -> None:
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            if place and (a is None or b is None or not abs(a - b) <= _TOLERANCE):
                raise ModelError(
                    f"{self.name}: its log-probabilities disagree: token {place} has {a}, and {b} {how};"
                    f" they must agree to {_TOLERANCE}"
                )
