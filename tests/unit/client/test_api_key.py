"""The API key: where it is read from, where it is sent, and that no text shows it."""

from __future__ import annotations

import asyncio
import codecs
import logging
import multiprocessing
import os
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from halimede import (
    ApiKey,
    AsyncClient,
    Client,
    HalimedeError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    RetryPolicy,
)
from halimede.cli import app
from halimede.cli.exits import Exit
from halimede.cli.session import Session, Tools
from halimede.target import parse_target
from halimede.testing import FakeGrpcServer, FakeHttpServer, FakeTransport, answer
from halimede.wire.faults import server_error
from halimede.wire.rest import status_error

SECRET = "s3cr3t-of-Proteus="
ONCE = RetryPolicy(attempts=1)
RESTRICTED = "This protocol is restricted, expecting header 'triton-grpc-protocol-halimede-key'"
sendable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80)


class Cli:
    """Runs the command line and records the sessions."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    def run(self, *arguments: str, before: Sequence[str] = (), **environment: str) -> Result:
        def connect(session: Session) -> Client:
            assert session.key is None or session.key.value
            self.sessions.append(session)
            return Client(transport=FakeTransport(answer("a")), retry=ONCE)

        unset = dict.fromkeys(name for name in os.environ if name.startswith("HALIMEDE_"))
        tools = Tools(connect=connect, is_interactive=lambda: False)
        typed = [*before, "generate", "?", *arguments]
        return CliRunner().invoke(app, typed, obj=tools, env={**unset, **environment})

    def key(self, *arguments: str, before: Sequence[str] = (), **environment: str) -> ApiKey | None:
        done = self.run(*arguments, before=before, **environment)
        assert done.exit_code == 0, done.output
        return self.sessions[-1].key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "halimede.key"
    path.write_text(f"{SECRET}\n")
    return path


class TestSending:
    def test_grpc_metadata_carries_the_key_with_tritons_prefix(self) -> None:
        with FakeGrpcServer(answer("a"), answer("a")) as server:
            with Client(server.url, api_key=ApiKey(SECRET)) as client:
                client.generate("?")

            async def ask() -> None:
                async with AsyncClient(server.url, api_key=ApiKey(SECRET, "X-Key")) as client:
                    await client.generate("?")

            asyncio.run(ask())
            one, other = server.metadata
        assert one["triton-grpc-protocol-halimede-key"] == SECRET
        assert other["triton-grpc-protocol-x-key"] == SECRET

    def test_an_http_header_carries_the_key(self) -> None:
        with FakeHttpServer(answer("a"), answer("a")) as server:
            with Client(server.url, headers={"x-other": "1"}, api_key=ApiKey(SECRET)) as client:
                client.generate("?")

            async def ask() -> None:
                async with AsyncClient(server.url, api_key=ApiKey(SECRET, "X-Key")) as client:
                    await client.generate("?")

            asyncio.run(ask())
            one, other = ({name.lower(): value for name, value in found.items()} for found in server.headers)
        assert (one["halimede-key"], one["x-other"], other["x-key"]) == (SECRET, "1", SECRET)

    def test_the_metrics_port_gets_no_key(self) -> None:
        with FakeHttpServer() as server, Client(metrics_url=server.url, api_key=ApiKey(SECRET)) as client:
            with pytest.raises(HalimedeError):
                client.metrics()
            assert SECRET not in str(server.headers)

    @given(sendable)
    def test_a_key_of_printable_ascii_is_sent_unchanged(self, value: str) -> None:
        assert ApiKey(value).headers(parse_target("http://x")) == {"halimede-key": value}


class _Refusing(grpc.GenericRpcHandler):
    """Refuses every call at its headers, as Triton does without the key."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        def refuse(_: object, context: grpc.ServicerContext) -> NoReturn:
            context.abort(grpc.StatusCode.UNAVAILABLE, RESTRICTED)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _refuse_all(port: Connection) -> None:
    server = grpc.server(ThreadPoolExecutor(8), handlers=[_Refusing()])
    port.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def test_a_refusal_keeps_its_status_however_early_it_comes() -> None:
    """grpc.aio lost about half of those that came before their requests were sent."""

    async def refused(url: str) -> Counter[type]:
        async with AsyncClient(url, api_key=ApiKey("wrong"), retry=ONCE) as client:
            with pytest.raises(PermissionDenied):
                await client.card()  # none was lost before the connection stood
            asked = (ask for _ in range(100) for ask in (client.generate("?"), client.card()))
            return Counter(map(type, await asyncio.gather(*asked, return_exceptions=True)))

    spawn = multiprocessing.get_context("spawn")
    port, given = spawn.Pipe(duplex=False)
    server = spawn.Process(target=_refuse_all, args=(given,))  # threads of this process would be too slow
    server.start()
    try:
        assert asyncio.run(refused(f"127.0.0.1:{port.recv()}")) == {PermissionDenied: 200}
    finally:
        server.kill()
        server.join()


class TestSources:
    def test_the_key_may_be_in_a_file_a_variable_or_an_option(self, file: Path) -> None:
        cli = Cli()
        assert cli.key() is None
        assert cli.key("--api-key-file", str(file)) == ApiKey(SECRET)
        assert cli.key(HALIMEDE_API_KEY_FILE=str(file)) == ApiKey(SECRET)
        assert cli.key(HALIMEDE_API_KEY="other") == ApiKey("other")
        assert cli.key("--api-key", "other", "--api-key-header", "x-key") == ApiKey("other", "x-key")
        assert cli.key(HALIMEDE_API_KEY="", HALIMEDE_API_KEY_HEADER="x-key") is None

    def test_the_command_line_overrides_the_environment(self, file: Path) -> None:
        cli = Cli()
        assert cli.key("--api-key-file", str(file), HALIMEDE_API_KEY="other") == ApiKey(SECRET)
        assert cli.key("--api-key", "typed", HALIMEDE_API_KEY_FILE=str(file)) == ApiKey("typed")
        assert cli.key(HALIMEDE_API_KEY="other", before=["--api-key-file", str(file)]) == ApiKey(SECRET)

    @pytest.mark.parametrize(
        "environment", [{"HALIMEDE_API_KEY": SECRET, "HALIMEDE_API_KEY_FILE": "f"}, {}], ids=["set", "typed"]
    )
    def test_two_keys_are_refused(self, environment: dict[str, str]) -> None:
        typed = [] if environment else ["--api-key", SECRET, "--api-key-file", "f"]
        done = Cli().run(*typed, **environment)
        assert done.exit_code == Exit.USAGE
        assert "api_key_file: f, cannot be combined with --api-key or HALIMEDE_API_KEY" in done.stderr
        assert SECRET not in done.output

    @pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
    @pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["", "marked"])
    def test_a_byte_order_mark_and_line_ends_are_not_part_of_the_key(
        self, ending: str, mark: bytes, file: Path
    ) -> None:
        file.write_bytes(mark + f"{SECRET}{ending}".encode())
        assert ApiKey.read(file) == ApiKey(SECRET)

    def test_help_warns_that_other_users_can_see_the_key(self) -> None:
        for arguments in (["--help"], ["generate", "--help"]):
            shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"}).stdout
            assert "--api-key-file" in shown
            assert "ther users of this machine can see" in shown


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            (lambda path: None, "must be readable (No such file or directory)"),
            (lambda path: path.mkdir(), "must be readable (Is a directory)"),
            (lambda path: path.write_text(""), "empty, must hold the server's key"),
            (lambda path: path.write_text("\n"), "empty, must hold the server's key"),
            (lambda path: path.write_text(f"{SECRET}\n{SECRET}\n"), "not shown, character 19 is not allowed"),
            (lambda path: path.write_text(f"{SECRET}é"), "not shown, character 19 is not allowed"),
            (lambda path: path.write_text(SECRET, "utf-16"), "not shown, character 1 is not allowed"),
            (lambda path: path.write_text(f"{SECRET} \n"), "not shown, must not begin or end with a space"),
            (lambda path: path.write_text(SECRET * 1000), "not shown, must have at most 4096 characters"),
        ],
    )
    def test_a_file_without_a_key(self, make: Callable[[Path], object], problem: str, tmp_path: Path) -> None:
        path = tmp_path / "halimede.key"
        make(path)
        done = Cli().run("--api-key-file", str(path))
        assert (done.exit_code, done.stdout) == (Exit.USAGE, "")
        assert str(path) in done.stderr
        assert problem in done.stderr
        assert SECRET not in done.stderr

    @pytest.mark.parametrize("bad", ["\n", "\r\nx-other: 1", "\0", "é", "世", "\x7f", "\udcff"])
    def test_a_character_that_no_header_may_carry_is_refused(self, bad: str) -> None:
        done = Cli().run("--api-key", SECRET + bad)
        assert done.exit_code == Exit.USAGE
        assert "error: INVALID_ARG: --api-key or HALIMEDE_API_KEY: not shown, character 19 is" in done.stderr
        assert SECRET not in done.output

    @pytest.mark.parametrize("header", ["", "x key", "x:y", "é", "x\n"])
    def test_the_header_must_have_a_valid_name(self, header: str) -> None:
        with pytest.raises(InvalidArgument, match="api_key_header: "):
            ApiKey(SECRET, header)

    @pytest.mark.parametrize("url", ["localhost:1", "http://localhost:1"])
    def test_a_refused_header_is_named_without_its_value(self, url: str) -> None:
        with pytest.raises(
            InvalidArgument, match=r"headers\[authorization\]: not shown, character 26"
        ) as caught:
            Client(url, headers={"authorization": f"Bearer {SECRET}\n"})
        assert SECRET not in str(caught.value)

    def test_a_url_with_a_password_is_refused_and_not_shown(self) -> None:
        for url in (f"https://user:{SECRET}@localhost", f"user:{SECRET}@localhost:8001", f"ftp://{SECRET}@x"):
            with pytest.raises(InvalidArgument, match="must not contain a user name or password") as caught:
                Client(url)
            assert SECRET not in str(caught.value)
        with Client(metrics_url=f"http://user:{SECRET}@127.0.0.1:1/metrics") as client:
            with pytest.raises(HalimedeError) as failed:
                client.metrics()
            assert SECRET not in str(failed.value)


class TestSecrecy:
    def test_no_repr_log_or_traceback_shows_the_key(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The logs are those of every library, the tracebacks those of refused and of failed requests."""
        caplog.set_level(logging.DEBUG)
        key = ApiKey.read(file)
        session = Session(api_key=SECRET)
        texts = [repr(key), str(key), repr(session), repr(session.key)]
        with FakeGrpcServer([Internal("no")]) as one, FakeHttpServer([Internal("no")]) as other:
            for url in (one.url, other.url, "127.0.0.1:1", "http://127.0.0.1:1"):
                with Client(url, api_key=key, retry=ONCE) as client:
                    try:
                        client.generate("?")
                    except HalimedeError:
                        texts += [repr(client), traceback.format_exc()]
            assert SECRET in str(one.metadata)
            assert SECRET in str(other.headers)
        assert len(texts) == 12
        assert SECRET not in "".join(texts) + caplog.text

    @pytest.mark.parametrize("url", ["127.0.0.1:1", "http://127.0.0.1:1", "https://127.0.0.1:1"])
    def test_no_error_of_the_command_line_shows_the_key(self, url: str, file: Path) -> None:
        arguments = ["generate", "?", "--url", url, "--api-key-file", str(file)]
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, "error: " in done.stderr) == (Exit.UNAVAILABLE, True)
        assert SECRET not in done.output

    @pytest.mark.parametrize(
        ("url", "warnings"),
        [
            ("llm.example.org", 1),
            ("http://10.1.2.3", 1),
            ("grpcs://llm.example.org", 0),
            ("https://llm.example.org", 0),
            ("localhost", 0),
            ("http://127.0.0.1", 0),
            ("[::1]:8001", 0),
        ],
    )
    def test_an_unencrypted_key_gives_a_warning(self, url: str, warnings: int) -> None:
        done = Cli().run("--url", url, "--api-key", SECRET)
        assert (done.exit_code, done.stderr.count("warning: the API key is sent to ")) == (0, warnings)
        assert Cli().run("--url", url).stderr == ""


class TestAnswers:
    def test_a_server_that_refuses_the_key(self) -> None:
        for error in (
            server_error(RESTRICTED, "UNAVAILABLE"),
            status_error(403, b'{"error": "This API is restricted, expecting header \'halimede-key\'"}'),
        ):
            assert type(error) is PermissionDenied
            assert str(error) == "PERMISSION_DENIED: header: halimede-key, must hold the server's key"

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_proxy_that_refuses_the_key(self, status: int) -> None:
        assert type(status_error(status, b"<html>no</html>")) is PermissionDenied

    def test_a_refused_key_is_not_retried_and_the_user_gets_advice(self) -> None:
        refused = server_error(RESTRICTED)
        fake = FakeTransport([refused])
        tools = Tools(connect=lambda _: Client(transport=fake))
        done = CliRunner().invoke(app, ["generate", "?"], obj=tools)
        assert done.exit_code == Exit.USAGE
        assert "--api-key-file or HALIMEDE_API_KEY_FILE" in done.stderr
        assert len(fake.requests) == 1
