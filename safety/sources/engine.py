"""A built engine in a process of its own: server/inprocess.py, which speaks JSON lines."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from safety.evaluate.model import Completion, ModelError, Window
from safety.sources.tokens import Texts

MANIFEST: Final = "manifest.json"
_PROGRAM: Final = Path(__file__).resolve().parents[2] / "server" / "inprocess.py"
# No text of an evaluation is longer, and a context costs memory for each slot.
_MAX_CONTEXT: Final = 2048
_WINDOWS: Final = 256
_PROMPTS: Final = 256
_TAIL_LINES: Final = 5
Json = dict[str, Any]


def open_engine(folder: Path) -> Engine:
    """Raises ModelError for a manifest that cannot be read, or an engine that does not start."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        decoder, positions = manifest["model"]["architecture"], manifest["model"]["max_positions"]
        texts = Texts((folder / "tokenizer.json").read_text("utf-8"), _special(manifest["tokenizer"]))
        digest = hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: its {MANIFEST} cannot be read ({error!r}); build it again") from error
    if decoder != "decoder":
        raise ModelError(f"{folder}: an {decoder} answers a source, must be a decoder, which goes on with it")
    settings = {"max_context": str(min(_MAX_CONTEXT, positions))}
    command = [sys.executable, str(_PROGRAM), str(folder), "--parameters", json.dumps(settings)]
    return Engine(manifest, digest, texts, Program(manifest["name"], command))


def _special(tokenizer: Json) -> dict[str, str]:
    return {str(name): token for name, token in tokenizer["special_tokens"].items() if token}


class Engine:
    """`digest` is that of the list of the engine's files, which has the SHA-256 of each."""

    def __init__(self, manifest: Json, digest: str, texts: Texts, program: Program) -> None:
        self._texts, self._program = texts, program
        self.name: str = manifest["name"]
        card = program.first["card"]
        self.positions: int = card["max_context"]
        self.facts: Mapping[str, str] = {
            "source": f"engine {self.name}",
            "weights": digest,
            "precision": manifest["precision"],
            "dialect": manifest["dialect"],
            "kernels": card["kernels"] or f"none: {card['kernels_missing']}",
            "processor": _processor(),
        }

    @property
    def prefix(self) -> int:
        return self._texts.prefix

    def encode(self, text: str) -> list[int]:
        return self._texts.encode(text)

    def chat(self, message: str) -> list[int]:
        """By the engine's own template, as the server renders it. Raises ModelError where there is none."""
        prompts: list[list[int]] = self._program.ask(do="chat", messages=[message])["prompts"]
        return prompts[0]

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        for at in range(0, len(windows), _WINDOWS):
            part = windows[at : at + _WINDOWS]
            starts, tokens = [window.start for window in part], [window.tokens for window in part]
            for losses in self._program.ask(do="score", windows=tokens, starts=starts)["losses"]:
                yield [-loss for loss in losses]

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:
        for at in range(0, len(prompts), _PROMPTS):
            part = [_asked(prompt) for prompt in prompts[at : at + _PROMPTS]]
            yield from (
                answer["text"] for answer in self._program.ask(do="complete", prompts=part)["answers"]
            )

    def close(self) -> None:
        self._program.close()


def _asked(prompt: Completion) -> Json:
    sampled = prompt.seed is not None
    return {
        "tokens": prompt.tokens,
        "max_tokens": prompt.max_tokens,
        "seed": prompt.seed,
        "temperature": 1.0 if sampled else 0.0,
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Program:
    """A child that writes one line when it is ready, `first`, and one for each that it reads. `name` is for
    messages. Ctrl-C is not its: it ends when its stdin does.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """Raises ModelError with the end of what it wrote to stderr."""
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  for as long as the child
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        try:
            self.first = self._read()
        except BaseException:
            self.close()
            raise

    def ask(self, **command: Any) -> Json:
        """Raises ModelError for a command that it refuses, and where it has ended."""
        assert self._child.stdin
        try:
            self._child.stdin.write(json.dumps(command) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        answer = self._read()
        if "error" in answer:
            raise ModelError(f"{self._name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """What it is still computing is not waited for."""
        self._child.kill()
        with suppress(BrokenPipeError):
            self._child.communicate()
        self._errors.close()

    def _read(self) -> Json:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line.endswith("\n"):
            raise self._ended()
        answer: Json = json.loads(line)
        return answer

    def _ended(self) -> ModelError:
        self._child.kill()
        code = self._child.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        tail = " | ".join(line.strip() for line in lines[-_TAIL_LINES:] if line.strip())
        return ModelError(f"{self._name}: its program ended with code {code}: {tail or 'it said nothing'}")
