"""Characters that stdout cannot show, and input that is not text, in every command."""

from __future__ import annotations

import codecs
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halimede import Health, InvalidArgument, ModelInfo, NotFound
from halimede.cli.exits import Exit
from halimede.cli.input import decoded
from halimede.testing import FakeGrpcServer, FakeTransport, answer
from tests.paths import ROOT
from tests.unit.client.command import run

CLIENT = ROOT / "client"
PATIENCE_S = 120.0
NARROW = ["ascii", "latin-1", "cp1252"]
TEXT = "Grüße, 世界! 🙂 e\u0301 €"
CHAT = ["chat"]
ASKING = [
    ["generate", "?"],
    ["generate", "?", "--stream"],
    ["generate", "?", "--chat"],
    CHAT,
    ["summarize", "?"],
    ["translate", "?", "--stream"],
]
# As written on Windows: a byte-order mark and CRLF.
MARKED = codecs.BOM_UTF8 + "Grüße\r\n".encode()
WIDE = {
    "utf-16": "Hi\n".encode("utf-16"),
    "utf-16-be": codecs.BOM_UTF16_BE + "Hi\n".encode("utf-16-be"),
    "utf-32": "Hi\n".encode("utf-32"),
    "without a mark": "Hi\n".encode("utf-16-le"),
}


def _shown(text: str, charset: str) -> bytes:
    """The expected output, encoded character by character with Python's own handler."""
    return b"".join(character.encode(charset, "replace") for character in text)


@pytest.mark.parametrize("charset", NARROW)
@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_stdout_replaces_characters_and_warns_once(arguments: list[str], charset: str) -> None:
    turns = [answer(*TEXT)] * 2
    done = run(FakeTransport(*turns), *arguments, charset=charset, input="?\n?\n")
    answers = 2 if arguments == CHAT else 1
    assert (done.exit_code, done.stdout_bytes) == (0, _shown(f"{TEXT}\n" * answers, charset))
    assert done.stderr.count("warning: ") == 1
    assert f"{charset} lacks" in done.stderr


@settings(max_examples=20)
@given(st.lists(st.text(max_size=5), max_size=5), st.sampled_from([*NARROW, "utf-8"]), st.booleans())
def test_the_output_does_not_depend_on_the_chunks(pieces: list[str], charset: str, stream: bool) -> None:
    text = "".join(pieces)
    done = run(FakeTransport(answer(*pieces)), "generate", "?", *["--stream"] * stream, charset=charset)
    expected = _shown(text, charset) + b"\n" * bool(text or not stream)
    assert done.stdout_bytes == expected
    assert done.stderr.count("warning: ") == (expected.count(b"?") > text.count("?"))


@pytest.mark.parametrize("arguments", [one for one in ASKING if one != CHAT], ids=" ".join)
def test_json_is_ascii(arguments: list[str]) -> None:
    done = run(FakeTransport(answer(*TEXT)), *arguments, "--json", charset="ascii")
    texts = [json.loads(line)["text"] for line in done.stdout_bytes.decode("ascii").splitlines()]
    assert ("".join(texts), done.stderr) == (TEXT, "")


def test_other_commands_replace_characters_too() -> None:
    rows = (ModelInfo("gemüse", "1", "UNAVAILABLE", "zerstört: 世界"),)
    done = run(FakeTransport(models=rows), "models", charset="ascii")
    assert (done.exit_code, b"gem?se" in done.stdout_bytes, done.stderr.count("warning: ")) == (0, True, 1)
    health = Health(True, True, "gemüse", True, "tritön", "2", ("1",))
    done = run(FakeTransport(health=health), "health", charset="ascii")
    assert (done.exit_code, b"gem?se" in done.stdout_bytes, done.stderr.count("warning: ")) == (0, True, 1)
    rows = (ModelInfo("gemüse", "1", "READY"),)
    done = run(FakeTransport(models=rows), "unload", "gemüse", charset="ascii")
    assert (done.stdout_bytes, done.stderr.count("warning: ")) == (b"gem?se is unloaded\n", 1)
    done = run(FakeTransport(metrics='halimede_x{model="gemüse"} 1\n'), "metrics", charset="ascii")
    assert (done.stdout_bytes, done.stderr.count("warning: ")) == (b"halimede_x{model=gem?se} 1\n", 1)


def test_an_error_escapes_characters_that_stderr_lacks() -> None:
    error = NotFound.of("model", "gemüse 🙂", "is not in the server's repository")
    done = run(FakeTransport([error]), "generate", "?", charset="ascii")
    assert (done.exit_code, done.stdout) == (Exit.USAGE, "")
    assert "gem\\xfcse \\U0001f642" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["health", "--model"], ["generate", "?", "--model"], ["health", "--url"]]
)
def test_an_argument_that_is_not_text_is_refused(arguments: list[str]) -> None:
    done = run(FakeTransport(), *arguments, os.fsdecode(b"\xff"))
    assert (done.exit_code, done.stderr.count("error: INVALID_ARG: ")) == (Exit.USAGE, 1)


class TestProcess:
    """The same with the real streams of a process."""

    @pytest.mark.parametrize(
        ("arguments", "encoding", "shown", "warnings"),
        [
            (["generate", "?"], "ascii", b"Gr??e ?\n", 1),
            (["generate", "?", "--stream"], "latin-1", b"Gr\xfc\xdfe ?\n", 1),
            (CHAT, "ascii:ignore", b"Gre \n", 0),
        ],
    )
    def test_the_environment_says_how_to_replace(
        self, arguments: list[str], encoding: str, shown: bytes, warnings: int
    ) -> None:
        with FakeGrpcServer(answer("Grü", "ße ", "🙂")) as server:
            done = _process([*arguments, "--url", server.url], b"?\n", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stdout) == (0, shown)
        assert done.stderr.count(b"warning: ") == warnings

    def test_the_c_locale_replaces_characters(self) -> None:
        environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        with FakeGrpcServer(answer("Grüße")) as server:
            done = _process(["generate", "-", "--url", server.url], b"?", **environment)
        assert (done.returncode, done.stdout) == (0, b"Gr??e\n")

    def test_a_typed_line_that_is_not_text_is_refused(self) -> None:
        """The terminal sends Latin-1, Python expects UTF-8. Without a terminal, an error is the end."""
        master, slave = pty.openpty()
        with FakeGrpcServer() as server:
            chat = subprocess.Popen(
                [sys.executable, "-m", "halimede", "chat", "--url", server.url],
                stdin=slave,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=CLIENT,
                env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            )
            os.close(slave)
            os.write(master, b"Gr\xfc\xdfe\n")
            shown, stderr = chat.communicate(timeout=PATIENCE_S)
            os.close(master)
        assert (chat.returncode, shown) == (Exit.USAGE, b"")
        assert b"prompt: stdin, byte 3 (0xfc) is not utf-8" in stderr


def _process(arguments: list[str], stdin: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "halimede", *arguments],
        input=stdin,
        capture_output=True,
        cwd=CLIENT,
        env=os.environ | environment,
        timeout=PATIENCE_S,
        check=False,
    )


def _asked(fake: FakeTransport) -> str | None:
    (request,) = fake.requests
    return request.messages[-1]["content"] if request.messages else request.prompt


READING: list[Callable[[Path], list[str]]] = [
    lambda _: ["generate", "-"],
    lambda _: ["generate", "-", "--chat"],
    lambda _: CHAT,
    lambda _: ["summarize", "-"],
    lambda file: ["translate", f"@{file}"],
]


@pytest.mark.parametrize("charset", ["utf-8", "cp1252"])
@pytest.mark.parametrize("reading", READING)
def test_a_byte_order_mark_is_not_part_of_the_prompt(
    reading: Callable[[Path], list[str]], charset: str, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(MARKED)
    fake = FakeTransport(answer("a"))
    done = run(fake, *reading(tmp_path / "text.txt"), charset=charset, input=MARKED)
    assert (done.exit_code, done.stderr) == (0, "")
    assert (_asked(fake) or "").rstrip("\n") == "Grüße"


@pytest.mark.parametrize("data", [*WIDE.values(), b"caf\xe9\n"], ids=[*WIDE, "latin-1"])
@pytest.mark.parametrize("reading", READING)
def test_bytes_that_are_not_text_are_refused_with_advice(
    reading: Callable[[Path], list[str]], data: bytes, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(data)
    fake = FakeTransport()
    arguments = reading(tmp_path / "text.txt")
    done = run(fake, *arguments, input=data)
    assert (done.exit_code, fake.requests) == (Exit.USAGE, [])
    assert f"prompt: {arguments[-1].lstrip('@') if 'translate' in arguments else 'stdin'}, " in done.stderr
    assert "iconv -f" in done.stderr


def test_stdin_is_decoded_in_its_encoding() -> None:
    fake = FakeTransport(answer("a"))
    run(fake, "generate", "-", charset="cp1252", input="50 €".encode("cp1252"))
    assert fake.requests[0].prompt == "50 €"


def test_a_byte_order_mark_sets_the_encoding_of_a_whole_chat() -> None:
    fake = FakeTransport(answer("a"), answer("b"))
    run(fake, "chat", charset="latin-1", input=codecs.BOM_UTF8 + "Grüße\nÄpfel\n".encode())
    assert [r.messages[-1]["content"] for r in fake.requests if r.messages] == ["Grüße", "Äpfel"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\ufeff")), st.booleans())
def test_text_is_read_unchanged(text: str, marked: bool) -> None:
    assert decoded(codecs.BOM_UTF8 * marked + text.encode(), "stdin", "utf-8") == text


@given(st.binary())
def test_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:
        with pytest.raises(InvalidArgument, match="prompt: stdin, "):
            decoded(data, "stdin", "utf-8")
    else:
        assert decoded(data, "stdin", "utf-8") == text.replace("\r\n", "\n").replace("\r", "\n")
