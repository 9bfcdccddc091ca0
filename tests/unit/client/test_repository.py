"""Loading, reloading and unloading a model: the calls to Triton, and the errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import pytest

from halimede import AsyncClient, Client, ModelInfo, RetryPolicy
from halimede.cli.exits import Exit
from halimede.errors import (
    DeadlineExceeded,
    HalimedeError,
    Internal,
    InvalidArgument,
    NotFound,
    ServerError,
    Unavailable,
    Unsupported,
)
from halimede.testing import FakeHttpServer, FakeTransport
from halimede.wire.repository import failed_load
from tests.unit.client.command import run

STEPS = ("tokenizer", "engine", "detokenizer")
STATE = "load failed for model 'x_engine': version 3 is at UNAVAILABLE state:"
FRAMES = "\n\nAt:\n  /server/engine/edge/artifact.py(94): verify_files\n  /server/model.py(53): initialize\n"


def _llm(name: str, state: str = "READY", version: str = "1", reason: str = "") -> list[ModelInfo]:
    steps = tuple(f"{name}_{step}" for step in STEPS)
    rows = [ModelInfo(step, "1" if state == "READY" else "", state, reason) for step in steps]
    rows[1] = ModelInfo(steps[1], version, state, reason, backend="llm_engine")
    ensemble = ModelInfo(
        name, "1", state, reason, backend="ensemble", steps=steps if state == "READY" else ()
    )
    return [ensemble, *rows]


def _repository(**options: object) -> FakeTransport:
    models = [
        *_llm("gpt2", "UNAVAILABLE", ""),
        *_llm("smollm2", version="2"),
        ModelInfo("resnet", "1", "READY"),
    ]
    return FakeTransport(models=models, **options)  # type: ignore[arg-type]


def _client(fake: FakeTransport, clock: Iterator[float] | None = None) -> Client:
    ticks = clock or count(step=0.001)
    return Client(
        model="gpt2",
        transport=fake,
        retry=RetryPolicy(attempts=1),
        clock=lambda: next(ticks),
        sleep=lambda _: None,
    )


class TestLoad:
    def test_the_engine_is_loaded_first_and_the_ensemble_last(self) -> None:
        fake = _repository()
        assert _client(fake).load() == "1"
        loaded = ["gpt2_engine", "gpt2_tokenizer", "gpt2_detokenizer", "gpt2"]
        assert fake.changes == [("load", name) for name in loaded]

    def test_the_version_is_that_of_the_engine(self) -> None:
        assert _client(_repository()).load("smollm2") == "2"

    def test_a_model_that_is_not_halimedes_is_loaded_alone(self) -> None:
        fake = _repository()
        _client(fake).load("resnet")
        assert fake.changes == [("load", "resnet")]

    def test_the_error_for_an_unknown_model_lists_the_models(self) -> None:
        fake = _repository()
        message = "model: llama, is not in the server's repository, which has gpt2, resnet, smollm2"
        client = _client(fake)
        for change in (client.load, client.unload, client.reload):
            with pytest.raises(NotFound, match=message):
                change("llama")
        assert not fake.changes

    def test_a_failed_load_is_rolled_back(self) -> None:
        fault = Internal.of("tokenizer.json", "missing", "build the model again")
        fake = _repository(broken={"gpt2_tokenizer": fault})
        with pytest.raises(Internal, match=r"^gpt2 did not load: INTERNAL: tokenizer\.json: missing, build"):
            _client(fake).load()
        assert [name for change, name in fake.changes if change == "unload"] == [
            "gpt2_engine",
            "gpt2_tokenizer",
            "gpt2_detokenizer",
            "gpt2",
        ]

    def test_a_failed_new_version_leaves_the_previous_one_loaded(self) -> None:
        fake = _repository(broken={"smollm2_engine": Internal("broken")})
        with pytest.raises(
            Internal, match=r"^smollm2 did not load: broken; the previous version still serves$"
        ):
            _client(fake).reload("smollm2")
        assert fake.changes == [("load", "smollm2_engine")]

    def test_a_load_that_exceeds_its_timeout_is_not_rolled_back(self) -> None:
        """Triton continues the load."""
        fake = _repository(broken={"gpt2_engine": DeadlineExceeded("Deadline Exceeded")})
        with pytest.raises(DeadlineExceeded):
            _client(fake).load()
        assert fake.changes == [("load", "gpt2_engine")]

    def test_a_model_that_is_not_loaded_cannot_be_reloaded(self) -> None:
        fake = _repository()
        with pytest.raises(Unavailable, match="model: gpt2, is not loaded"):
            _client(fake).reload()
        assert not fake.changes

    def test_loading_over_http_is_refused(self) -> None:
        message = r"load: smollm2 at http://.*works over gRPC only"
        with (
            FakeHttpServer() as server,
            Client(server.url) as client,
            pytest.raises(Unsupported, match=message),
        ):
            client.load()

    @pytest.mark.anyio
    async def test_asynchronously(self) -> None:
        fake = _repository()
        async with AsyncClient(model="gpt2", transport=fake) as client:
            assert await client.load() == "1"
            await client.unload()
        assert [change for change, _ in fake.changes] == ["load"] * 4 + ["unload"] * 4


class TestUnload:
    def test_the_ensemble_is_unloaded_first_and_the_engine_last(self) -> None:
        fake = _repository()
        _client(fake).unload("smollm2")
        unloaded = ["smollm2", "smollm2_detokenizer", "smollm2_tokenizer", "smollm2_engine"]
        assert fake.changes == [("unload", name) for name in unloaded]

    def test_a_step_of_another_ensemble_stays_loaded(self) -> None:
        other = ModelInfo("other", "1", "READY", steps=("smollm2_engine",))
        fake = FakeTransport(models=[*_llm("smollm2"), other])
        _client(fake).unload("smollm2")
        assert ("unload", "smollm2_engine") not in fake.changes
        assert len(fake.changes) == 3

    def test_unload_waits_for_running_requests(self) -> None:
        class Busy(FakeTransport):
            looks = 0

            def index(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
                self.looks += 1
                busy = _llm("smollm2", "UNLOADING", "2")
                return tuple(busy) if self.looks < 4 else super().index(timeout_s)

        fake = Busy(models=_llm("smollm2"))
        _client(fake).unload("smollm2")
        assert fake.looks == 5  # the last one is for the steps

    def test_unload_does_not_wait_for_steps_that_triton_keeps(self) -> None:
        """Seen in Triton 2.51: after failed requests the ensemble stays UNLOADING, without its engine."""

        class Held(FakeTransport):
            def index(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
                held = ModelInfo("smollm2", "1", "UNLOADING")
                return (held, *_llm("smollm2", "UNAVAILABLE")[1:])

        fake = Held(models=_llm("smollm2"))
        _client(fake, count(step=0.2)).unload("smollm2", timeout=600.0)
        assert len(fake.changes) == 4

    def test_requests_that_exceed_the_timeout_raise(self) -> None:
        class Busy(FakeTransport):
            def index(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
                return tuple(_llm("smollm2", "UNLOADING"))

        with pytest.raises(
            DeadlineExceeded, match=r"timeout: 5\.0 s, smollm2 is draining: it refuses new requests"
        ):
            _client(Busy(models=_llm("smollm2")), count(step=0.2)).unload("smollm2", timeout=5.0)


class TestFailedLoad:
    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            (
                f"{STATE} Internal: ArtifactError: INTERNAL: model.onnx: 5 bytes, must be 9{FRAMES};",
                Internal,
                "x version 3 did not load: INTERNAL: model.onnx: 5 bytes, must be 9",
            ),
            (
                f"{STATE} Internal: SettingsError: INVALID_ARG: slots: many, must be in [1, 1024]{FRAMES};",
                InvalidArgument,
                "x version 3 did not load: INVALID_ARG: slots: many, must be in [1, 1024]",
            ),
            (
                "failed to load 'x', failed to poll from model repository",
                Internal,
                "x did not load: failed to load 'x', failed to poll from model repository",
            ),
        ],
    )
    def test_the_error_has_the_models_own_reason(
        self, text: str, kind: type[ServerError], message: str
    ) -> None:
        found = failed_load("x", Internal(text), serves=False)
        assert (type(found), str(found)) == (kind, message)

    def test_the_error_has_the_fields_of_the_reason(self) -> None:
        error = Internal(f"Internal: ArtifactError: INTERNAL: tokens.bin: missing, build it{FRAMES}")
        found = failed_load("x", error, serves=True)
        assert (found.code, found.field, found.value, found.limit) == (
            "INTERNAL",
            "tokens.bin",
            "missing",
            "build it",
        )


class TestCommands:
    def test_load_reload_and_unload(self) -> None:
        fake = _repository()
        for name, model, printed in (
            ("load", "gpt2", "gpt2 is ready, version 1\n"),
            ("reload", "smollm2", "smollm2 is ready, version 2\n"),
            ("unload", "smollm2", "smollm2 is unloaded\n"),
        ):
            result = run(fake, name, model)
            assert (result.exit_code, result.stdout, result.stderr) == (Exit.OK, printed, "")

    def test_as_json(self) -> None:
        fake = _repository()
        printed = json.loads(run(fake, "load", "gpt2", "--json").stdout)
        assert printed == {"model": "gpt2", "state": "READY", "version": "1"}
        printed = json.loads(run(fake, "unload", "gpt2", "--json").stdout)
        assert printed == {"model": "gpt2", "state": "UNAVAILABLE", "version": ""}

    @pytest.mark.parametrize(
        ("arguments", "faults", "code", "message"),
        [
            (["load", "llama"], {}, Exit.USAGE, "which has gpt2, resnet, smollm2"),
            (["reload", "gpt2"], {}, Exit.UNAVAILABLE, "`halimede load NAME` loads one"),
            (
                ["load", "gpt2"],
                {"gpt2_engine": Internal("no memory")},
                Exit.SERVER,
                "did not load: no memory",
            ),
        ],
    )
    def test_a_failure_is_printed_with_its_exit_code(
        self, arguments: list[str], faults: dict[str, HalimedeError], code: Exit, message: str
    ) -> None:
        result = run(_repository(broken=faults), *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert message in result.stderr

    def test_the_table_shows_the_serving_version_and_models_not_loaded(self) -> None:
        rows = [*_llm("gpt2", "UNAVAILABLE", "", "unloaded"), *_llm("smollm2", version="2")]
        rows += [
            ModelInfo("smollm2_engine", "1", "UNAVAILABLE", "unloaded"),
            ModelInfo("broken", "", "UNAVAILABLE", "no engine"),
        ]
        lines = run(FakeTransport(models=rows), "models").stdout.splitlines()[1:]
        assert [line.split("  ")[0] for line in lines] == ["broken", "gpt2", "smollm2"]
        assert "UNAVAILABLE: no engine" in lines[0]
        assert "not loaded" in lines[1]
        assert lines[2].split()[1:3] == ["2", "READY"]
