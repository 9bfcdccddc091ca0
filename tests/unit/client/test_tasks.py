"""Tasks, the cards of models, and the commands that use them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from halimede import Client, ModelCard, ModelInfo, ProtocolError, RetryPolicy, Unsupported
from halimede.cli.exits import Exit
from halimede.testing import FakeTransport, answer
from halimede.wire.repository import card_of
from tests.unit.client.command import run

BART = ModelCard(
    name="bart",
    task="summarize",
    precision="int8",
    dialect="onnxruntime",
    size_bytes=420_000_000,
    quality={"perplexity": 10.5, "reference_perplexity": 10.0},
    slots=16,
    max_context=512,
    max_source=1024,
    max_queue=64,
    device="cpu",
    kv_bytes_per_token=36_864,
    kv_bytes_per_source_token=36_864,
    kv_bytes_per_slot=56_623_104,
    kv_bytes=905_969_664,
    kv_budget_bytes=10**9,
    kv_max_context=671,
)
MODELS = (
    ModelInfo("bart", "2", "READY", backend="ensemble", steps=("bart_tokenizer", "bart_engine")),
    ModelInfo("bart_tokenizer", "2", "READY", backend="llm_tokenizer"),
    ModelInfo("bart_engine", "2", "READY", backend="llm_engine"),
    ModelInfo("gpt2", "", "UNAVAILABLE", "unloaded"),
    ModelInfo("gpt2_engine", "", "UNAVAILABLE", "unloaded"),
    ModelInfo("resnet", "1", "READY", backend="onnxruntime"),
)


def _client(fake: FakeTransport) -> Client:
    return Client(model="bart", transport=fake, retry=RetryPolicy(attempts=1))


class TestTasks:
    def test_a_text_is_sent_unchanged_to_a_model_with_the_task(self) -> None:
        fake = FakeTransport(answer("Short."), answer("Sh", "ort."), cards=[BART])
        with _client(fake) as client:
            assert client.summarize("A long text.", num_beams=4).text == "Short."
            assert "".join(chunk.text for chunk in client.summarize_stream("A long text.")) == "Short."
        whole, streamed = fake.requests
        assert (whole.prompt, whole.stream, whole.sampling.num_beams) == ("A long text.", False, 4)
        assert streamed.stream

    def test_a_model_with_another_task_is_refused_before_sending(self) -> None:
        fake = FakeTransport(cards=[BART])
        with _client(fake) as client:
            for call in (client.translate, lambda text: client.translate_stream(text).collect()):
                with pytest.raises(Unsupported, match="model: bart, its task is summarize, not translate"):
                    call("Guten Morgen")
        assert not fake.requests

    def test_a_model_without_a_card_may_do_any_task(self) -> None:
        fake = FakeTransport(answer("Hello"))
        with _client(fake) as client:
            assert client.translate("Hallo").text == "Hello"


class TestCard:
    def test_a_card_is_parsed_and_unknown_fields_are_ignored(self) -> None:
        described = {name: getattr(BART, name) for name in ModelCard.__slots__} | {"model": {"layers": 12}}
        assert card_of(json.dumps({"describe": described})) == BART

    @pytest.mark.parametrize("chunk", ["{}", '{"describe": 1}', "no", '{"describe": {"name": "bart"}}'])
    def test_a_malformed_card_is_a_protocol_error(self, chunk: str) -> None:
        with pytest.raises(ProtocolError):
            card_of(chunk)


class TestCommands:
    def test_the_table_has_one_line_for_each_model_and_none_for_steps(self) -> None:
        lines = run(FakeTransport(models=MODELS, cards=[BART]), "models").stdout.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["bart", "gpt2", "resnet"]
        assert "summarize" in lines[1]
        assert "420 MB" in lines[1]
        assert "16 x 512, source 1024, queue 64" in lines[1]
        assert "36.9 kB/token, 906 MB, room for 671" in lines[1]
        assert "ppl 10.50 (reference 10.00)" in lines[1]

    def test_an_engine_on_a_gpu_is_marked_experimental(self) -> None:
        card = replace(BART, device="cuda:0", experimental=True)
        line = run(FakeTransport(models=MODELS, cards=[card]), "models").stdout.splitlines()[1]
        assert "int8 on cuda:0, experimental" in line

    @pytest.mark.parametrize(
        ("level", "missing", "shown"),
        [("avx2", None, "avx2"), (None, "the processor has no AVX2", "none: the processor has no AVX2")],
    )
    def test_the_table_shows_the_kernels_or_why_there_are_none(
        self, level: str | None, missing: str | None, shown: str
    ) -> None:
        card = replace(BART, kernels=level, kernels_missing=missing)
        lines = run(FakeTransport(models=MODELS, cards=[card]), "models").stdout.splitlines()
        assert lines[0].split()[-1] == "kernels"
        assert lines[1].rstrip().endswith(f"  {shown}")

    def test_the_kv_cache_is_left_out_if_the_server_does_not_report_it(self) -> None:
        old = replace(BART, kv_bytes_per_token=None, kv_bytes=None, kv_max_context=None)
        line = run(FakeTransport(models=MODELS, cards=[old]), "models").stdout.splitlines()[1]
        assert "kB/token" not in line
        assert "queue 64" in line

    def test_json_has_the_whole_card(self) -> None:
        found = json.loads(run(FakeTransport(models=MODELS, cards=[BART]), "models", "--json").stdout)
        assert [model["name"] for model in found] == ["bart", "gpt2", "resnet"]
        assert [model["card"] and model["card"]["max_source"] for model in found] == [1024, None, None]

    def test_texts_come_from_arguments_stdin_and_files(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("from a file", "utf-8")
        fake = FakeTransport(answer("a"), answer("b"), answer("c"), cards=[BART])
        for text in ("as it is", "-", f"@{tmp_path / 'text'}"):
            result = run(fake, "summarize", text, "--model", "bart", input="from stdin")
            assert result.exit_code == Exit.OK, result.stderr
        assert [request.prompt for request in fake.requests] == ["as it is", "from stdin", "from a file"]

    def test_a_missing_file_is_named(self) -> None:
        result = run(FakeTransport(), "summarize", "@nowhere.txt")
        assert result.exit_code == Exit.USAGE
        assert "nowhere.txt: No such file" in result.stderr
