"""The command line over a fake transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from halimede import Client, RetryPolicy, Sampling
from halimede.cli import app, output
from halimede.cli.exits import Exit, exit_code, hint
from halimede.cli.options import CONNECTION, SAMPLING
from halimede.cli.session import Session, Tools
from halimede.errors import (
    Cancelled,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    Internal,
    InvalidArgument,
    NotFound,
    ProtocolError,
    Unavailable,
    Unsupported,
)
from halimede.results import Chunk, Generation, Health, ModelInfo, Timing, TokenLogprob
from halimede.sampling import Message
from halimede.testing import FakeTransport, answer

READY = Health(True, True, "smollm2", True, "triton", "2.51.0", ("1",))
LOADING = Health(True, False, "smollm2", False, "triton", "2.51.0")


class Terminal:
    """A user who types these lines. An exception stands for a key such as Ctrl-C."""

    def __init__(self, *lines: str | type[BaseException], interactive: bool = True) -> None:
        self._lines: Iterator[str | type[BaseException]] = iter(lines)
        self.prompts: list[str] = []
        self.interactive = interactive

    def read_line(self, prompt: str) -> str:
        self.prompts.append(prompt)
        line = next(self._lines, EOFError)
        if isinstance(line, str):
            return line
        raise line


class Cli:
    def __init__(self, fake: FakeTransport, terminal: Terminal | None = None) -> None:
        self.fake = fake
        self.terminal = terminal or Terminal(interactive=False)
        self.sessions: list[Session] = []

    def connect(self, session: Session) -> Client:
        self.sessions.append(session)
        retry = RetryPolicy(attempts=1)
        return Client(transport=self.fake, model=session.model, timeout=session.timeout, retry=retry)

    def run(self, *arguments: str, **options: Any) -> Result:
        tools = Tools(self.connect, self.terminal.read_line, lambda: self.terminal.interactive)
        return CliRunner().invoke(app, arguments, obj=tools, catch_exceptions=False, **options)


class TestGenerate:
    @pytest.mark.parametrize("how", ["--stream", "--no-stream"])
    def test_trace_starts_a_trace_and_prints_its_id(self, how: str) -> None:
        cli = Cli(FakeTransport(answer("Paris", ".")))
        result = cli.run("generate", "?", "--trace", how)
        (request,) = cli.fake.requests
        assert request.traceparent
        assert f"trace {request.traceparent.split('-')[1]}\n" in result.stderr
        assert result.stdout == "Paris.\n"

    def test_it_prints_the_answer(self) -> None:
        cli = Cli(FakeTransport(answer("Paris", ".")))
        result = cli.run("generate", "The capital of France is")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "Paris.\n", "")
        assert cli.fake.requests[0].prompt == "The capital of France is"
        assert cli.fake.requests[0].stream is False  # the output is no terminal
        assert cli.fake.closed

    def test_the_option_stream_streams(self) -> None:
        cli = Cli(FakeTransport(answer("Paris", ".")))
        assert cli.run("generate", "?", "--stream").stdout == "Paris.\n"
        assert cli.fake.requests[0].stream is True

    def test_a_dash_reads_the_prompt_from_stdin(self) -> None:
        cli = Cli(FakeTransport(answer("a")))
        cli.run("generate", "-", input="Grüße\n")
        assert cli.fake.requests[0].prompt == "Grüße\n"

    @pytest.mark.parametrize(
        ("options", "roles"), [(["--chat"], ["user"]), (["--system", "Be brief."], ["system", "user"])]
    )
    def test_chat_and_system_send_messages(self, options: list[str], roles: list[str]) -> None:
        cli = Cli(FakeTransport(answer("a")))
        cli.run("generate", "?", *options)
        assert [message["role"] for message in cli.fake.requests[0].messages or ()] == roles

    def test_json_is_one_object(self) -> None:
        token = TokenLogprob(1, "a", b"a", -0.5)
        cli = Cli(FakeTransport([Chunk("é", "stop", 3, 1, (token,))]))
        printed = json.loads(cli.run("generate", "?", "--json").stdout)
        assert (printed["text"], printed["finish_reason"]) == ("é", "stop")
        assert (printed["num_input_tokens"], printed["num_output_tokens"]) == (3, 1)
        assert printed["logprobs"] == [{"id": 1, "token": "a", "bytes": [97], "logprob": -0.5, "top": []}]
        assert printed["timing"]["ttft_s"] is None

    def test_streamed_json_is_one_object_a_line(self) -> None:
        cli = Cli(FakeTransport(["a", Internal("no")]))
        result = cli.run("--json", "generate", "?", "--stream")
        first, last = (json.loads(line) for line in result.stdout.splitlines())
        assert (first["text"], last["error"]["type"]) == ("a", "Internal")
        assert result.exit_code == Exit.SERVER

    def test_every_sampling_field_is_an_option(self) -> None:
        counts = {"return_num_input_tokens", "return_num_output_tokens"}
        assert SAMPLING.keys() == set(Sampling.__dataclass_fields__) - counts

    def test_sampling_options_are_sent(self) -> None:
        options = "--max-tokens 5 --min-tokens 1 --temperature 0 --top-p 0.5 --min-p 0.1 --top-k 0"
        options += " --repetition-penalty 1.5 --frequency-penalty 0.5 --presence-penalty -0.5"
        options += " --seed 0 --stop a --stop b --logit-bias 5=-1.5 --ignore-eos --num-logprobs 2"
        cli = Cli(FakeTransport(answer("a")))
        assert cli.run("generate", "?", *options.split()).exit_code == 0
        assert cli.fake.requests[0].sampling == Sampling(
            max_tokens=5,
            min_tokens=1,
            temperature=0,
            top_p=0.5,
            min_p=0.1,
            top_k=0,
            repetition_penalty=1.5,
            frequency_penalty=0.5,
            presence_penalty=-0.5,
            seed=0,
            stop=["a", "b"],
            logit_bias={5: -1.5},
            ignore_eos=True,
            num_logprobs=2,
        )

    def test_options_not_given_are_not_sent(self) -> None:
        cli = Cli(FakeTransport(answer("a")))
        cli.run("generate", "?")
        assert cli.fake.requests[0].sampling == Sampling()

    @pytest.mark.parametrize("bias", ["5", "x=1", "5=x"])
    def test_a_malformed_bias_is_bad_usage(self, bias: str) -> None:
        assert Cli(FakeTransport()).run("generate", "?", "--logit-bias", bias).exit_code == Exit.USAGE

    def test_ctrl_c_cancels_and_exits_with_130(self) -> None:
        result = Cli(Interrupted(["a"])).run("generate", "?", "--stream")
        assert (result.stdout, result.exit_code) == ("a\n", Exit.INTERRUPTED)


class TestConnection:
    def test_options_may_stand_before_or_after_the_command(self) -> None:
        cli = Cli(FakeTransport(answer("a"), answer("a")))
        cli.run("--url", "one:1", "--timeout", "5", "generate", "?", "--model", "two")
        cli.run("--url", "one:1", "generate", "?", "--url", "two:2")
        first, second = cli.sessions
        assert (first.url, first.model, first.timeout) == ("one:1", "two", 5.0)
        assert second.url == "two:2"

    def test_every_option_of_the_connection_may_follow_the_command(self) -> None:
        assert CONNECTION.keys() == Session.__dataclass_fields__.keys() - {"tools"}
        cli = Cli(FakeTransport())
        assert cli.run("metrics", "--metrics-url", "http://one:8002/metrics").exit_code == 0
        assert cli.sessions[0].metrics_url == "http://one:8002/metrics"

    def test_the_environment_names_server_and_model(self) -> None:
        cli = Cli(FakeTransport(answer("a"), answer("a")))
        env = {"HALIMEDE_URL": "env:1", "HALIMEDE_MODEL": "bart"}
        cli.run("generate", "?", env=env)
        cli.run("--url", "flag:2", "generate", "?", env=env)
        assert [(s.url, s.model) for s in cli.sessions] == [("env:1", "bart"), ("flag:2", "bart")]

    def test_defaults(self) -> None:
        cli = Cli(FakeTransport(answer("a")))
        cli.run("generate", "?")
        assert (cli.sessions[0].url, cli.sessions[0].model) == ("localhost:8001", "smollm2")

    def test_a_bad_url_is_bad_usage(self) -> None:
        result = CliRunner().invoke(app, ["--url", "ftp://x", "health"])
        assert result.exit_code == Exit.USAGE
        assert "url: ftp://x, must start with one of grpc, grpcs, http, https" in result.stderr

    def test_help_has_examples_and_exit_codes(self) -> None:
        result = CliRunner().invoke(app, ["--help"])
        assert result.exit_code == 0
        assert "halimede chat --system" in result.stdout
        assert "130 interrupted" in result.stdout

    def test_version(self) -> None:
        assert "halimede" in CliRunner().invoke(app, ["--version"]).stdout


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (InvalidArgument.of("top_p", 2, "must be in (0, 1]"), 2),
            (NotFound("x"), 2),
            (Unsupported("x"), 2),
            (ConnectionFailed("no server at x"), 3),
            (ConnectionLost("x"), 3),
            (Unavailable("x"), 3),
            (DeadlineExceeded("x"), 4),
            (Internal("x"), 5),
            (Cancelled("x"), 5),
            (ProtocolError("x"), 5),
        ],
    )
    def test_exit_codes_and_messages(self, error: HalimedeError, code: int) -> None:
        result = Cli(FakeTransport([error])).run("generate", "?")
        assert result.exit_code == code == exit_code(error)
        assert result.stdout == ""
        assert result.stderr.startswith(f"error: {error}\n")
        assert (hint(error) or "") in result.stderr

    def test_without_a_server_the_advice_is_to_start_one(self) -> None:
        result = Cli(FakeTransport([ConnectionFailed("no server at localhost:8001: refused")])).run(
            "generate", "?"
        )
        assert "make serve" in result.stderr

    def test_as_json(self) -> None:
        error = InvalidArgument.of("top_p", 2, "must be in (0, 1]")
        result = Cli(FakeTransport([error])).run("generate", "?", "--json")
        assert json.loads(result.stdout)["error"] == {
            "type": "InvalidArgument",
            "message": "INVALID_ARG: top_p: 2, must be in (0, 1]",
            "code": "INVALID_ARG",
            "field": "top_p",
            "value": "2",
            "limit": "must be in (0, 1]",
        }


class TestServer:
    MODELS = (
        ModelInfo("smollm2", "1", "READY", backend="ensemble", steps=("a", "b")),
        ModelInfo("broken", "", "UNAVAILABLE", "no engine"),
    )

    def test_models(self) -> None:
        result = Cli(FakeTransport(models=self.MODELS)).run("models")
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[1:] == [
            ["broken", "UNAVAILABLE:", "no", "engine"],
            ["smollm2", "1", "READY", "ensemble"],
        ]

    def test_models_as_json(self) -> None:
        found = json.loads(Cli(FakeTransport(models=self.MODELS)).run("models", "--json").stdout)
        assert [model["name"] for model in found] == ["broken", "smollm2"]

    def test_health(self) -> None:
        result = Cli(FakeTransport(health=READY)).run("health")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "server  ready  triton 2.51.0 at localhost:8001",
            "model   ready  smollm2 1",
        ]

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_health_while_loading(self, options: list[str]) -> None:
        result = Cli(FakeTransport(health=LOADING)).run("health", *options)
        assert result.exit_code == Exit.UNAVAILABLE
        assert result.stdout.startswith("server  live  " if not options else '{"live": true')

    def test_metrics(self) -> None:
        text = 'halimede_x{b="2",a="1"} 3\nhalimede_y_bucket{le="1"} 4\nnv_z 5\n'
        fake = FakeTransport(metrics=text)
        assert Cli(fake).run("metrics").stdout == "halimede_x{a=1,b=2} 3\n"
        assert Cli(fake).run("metrics", "nv_").stdout == "nv_z{} 5\n"
        assert len(json.loads(Cli(fake).run("metrics", "--json").stdout)) == 2


class Interrupted(FakeTransport):
    """Raises KeyboardInterrupt at the end of its first turn, like Ctrl-C."""

    def generate(self, request: Any) -> Any:
        try:
            yield from super().generate(request)
        finally:
            if len(self.requests) == 1:
                raise KeyboardInterrupt


class TestChat:
    def test_the_next_question_is_sent_with_the_conversation(self) -> None:
        cli = Cli(FakeTransport(answer("Hello", "!"), answer("Bob.")), Terminal("I am Bob", "", "Who am I?"))
        result = cli.run("chat", "--system", "Be brief.", "--temperature", "0")
        assert result.exit_code == 0
        assert result.stdout == "Hello!\nBob.\n\n"  # and a line after Ctrl-D
        assert cli.fake.requests[1].sampling == Sampling(temperature=0)
        assert cli.fake.requests[1].stream is True
        assert list(cli.fake.requests[1].messages or ()) == [
            Message(role="system", content="Be brief."),
            Message(role="user", content="I am Bob"),
            Message(role="assistant", content="Hello!"),
            Message(role="user", content="Who am I?"),
        ]

    def test_reset_keeps_only_the_system_message(self) -> None:
        terminal = Terminal("/system Be brief.", "a", "/reset", "b", "/system")
        cli = Cli(FakeTransport(answer("x"), answer("y")), terminal)
        assert cli.run("chat").stderr.count("system: Be brief.") == 2
        assert [m["content"] for m in cli.fake.requests[1].messages or ()] == ["Be brief.", "b"]

    def test_exit_leaves(self) -> None:
        cli = Cli(FakeTransport(), Terminal("/exit", "never asked"))
        assert cli.run("chat").exit_code == 0
        assert len(cli.terminal.prompts) == 1

    def test_help_and_unknown_commands(self) -> None:
        result = Cli(FakeTransport(), Terminal("/help", "/what")).run("chat")
        assert "/reset" in result.stderr
        assert "unknown command /what" in result.stderr

    def test_ctrl_c_cancels_an_answer_and_keeps_the_part_that_was_read(self) -> None:
        cli = Cli(Interrupted(["Once ", "upon "], answer("b")), Terminal("Tell", "Go on"))
        result = cli.run("chat")
        assert result.exit_code == 0
        assert cli.fake.requests[1].messages == [
            Message(role="user", content="Tell"),
            Message(role="assistant", content="Once upon "),
            Message(role="user", content="Go on"),
        ]

    def test_ctrl_c_at_the_prompt_explains_how_to_leave(self) -> None:
        cli = Cli(FakeTransport(answer("a")), Terminal(KeyboardInterrupt, "Hi"))
        result = cli.run("chat")
        assert "/exit leaves" in result.stderr
        assert "a\n" in result.stdout

    def test_an_error_is_shown_and_its_question_dropped(self) -> None:
        refused = InvalidArgument.of("prompt", "3000 tokens", "limit 2048")
        cli = Cli(FakeTransport(["par", refused], answer("b")), Terminal("long", "short"))
        result = cli.run("chat")
        assert result.exit_code == 0
        assert "prompt: 3000 tokens, limit 2048" in result.stderr
        assert [m["content"] for m in cli.fake.requests[1].messages or ()] == ["short"]

    def test_without_a_terminal_there_is_no_prompt_and_an_error_ends_the_chat(self) -> None:
        terminal = Terminal("a", "b", "c", interactive=False)
        cli = Cli(FakeTransport(answer("x"), [Internal("broken")]), terminal)
        result = cli.run("chat")
        assert (result.stdout, result.exit_code) == ("x\n", Exit.SERVER)
        assert terminal.prompts == ["", ""]

    def test_without_a_terminal_ctrl_c_ends_the_chat(self) -> None:
        cli = Cli(Interrupted(["a"]), Terminal("a", "b", interactive=False))
        assert cli.run("chat").exit_code == Exit.INTERRUPTED

    def test_it_does_not_start_without_a_ready_model(self) -> None:
        result = Cli(FakeTransport(health=LOADING), Terminal("a")).run("chat")
        assert result.exit_code == Exit.UNAVAILABLE
        assert "model: smollm2, is not ready" in result.stderr
        gone = FakeTransport(failure=ConnectionFailed("no server at x"))
        assert Cli(gone, Terminal("a")).run("chat").exit_code == Exit.UNAVAILABLE


@pytest.mark.parametrize(
    ("timing", "tokens", "figures"),
    [
        (Timing(0.5, 1.5), 11, ["11 tokens", "first after 0.50 s", "then 10.0 tokens/s", "stop"]),
        (Timing(0.5, 0.5), 1, ["1 tokens", "first after 0.50 s", "stop"]),
        (Timing(None, 1.5), None, ["stop"]),
    ],
)
def test_figures(timing: Timing, tokens: int | None, figures: list[str]) -> None:
    assert output.figures(Generation("a", "stop", 1, tokens, (), timing)) == figures
