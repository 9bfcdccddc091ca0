"""The command as it is typed: what it prints where, and what it exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from build.cli import main
from build.sources import hub
from tests.models import tiny
from tests.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint")


def command(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    source = ["--name", "mini", "--source", str(folder), "--precision", "fp32"]
    return [*source, "--repository", str(tmp_path / "repository"), "--verify-tokens", "64", *more]


def test_a_build_prints_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folder, tmp_path)) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert out.startswith(f"mini fp32: {tmp_path}/repository/mini_engine/1, ")
    assert "perplexity" in out
    assert ", no independent check (--check transformers), " in out
    assert err == ""


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build.cli.find_spec", lambda name: None if name == "torch" else name)


@pytest.mark.usefixtures("without_torch")
def test_a_check_that_is_asked_for_needs_torch(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folder, tmp_path, "--check", "transformers")) == 2
    assert capsys.readouterr().err == "error: --check transformers: needs torch: pip install '.[test]'\n"
    assert not (tmp_path / "repository").exists()


@pytest.mark.usefixtures("without_torch")
def test_a_recipe_with_a_check_is_built_without_torch_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mini.toml"
    path.write_text(f'name = "mini"\nsource = "{folder}"\nprecision = "fp32"\ncheck = "transformers"\n')
    assert main([str(path), "--repository", str(tmp_path / "repository"), "--verify-tokens", "64"]) == 0
    assert ", no independent check: torch is not installed, " in capsys.readouterr().out


def test_a_setting_that_no_engine_supports_is_a_note(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": 2, "typical_p": 0.5}')
    assert main(command(folder, tmp_path)) == 0
    note = "note: the checkpoint sets typical_p 0.5, which no engine here supports\n"
    assert capsys.readouterr().err == note


def test_torch_is_not_imported_unasked() -> None:
    """It takes seconds, and the demo has none."""
    program = (
        "import sys, build.cli; print({'torch', 'transformers', 'build.independent'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"set()\n"


def test_a_second_build_needs_force(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folder, tmp_path)) == 0
    assert main(command(folder, tmp_path)) == 2
    assert "exists: add --force to replace it" in capsys.readouterr().err
    assert main(command(folder, tmp_path, "--force")) == 0


def test_a_new_version_keeps_the_old_one(folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert main(command(folder, tmp_path, "--new-version")) == 0
    (engine,) = tmp_path.rglob("*_engine")
    assert sorted(path.name for path in engine.iterdir()) == ["1", "2", "config.pbtxt"]
    assert (engine / "1/manifest.json").read_bytes() == (engine / "2/manifest.json").read_bytes()


def test_a_recipe_may_be_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'name = "mine"\nsource = "{folder}"\nprecision = "fp32"\n')
    repository = str(tmp_path / "repository")
    assert main([str(recipe), "--repository", repository, "--verify-tokens", "64"]) == 0
    assert capsys.readouterr().out.startswith("mine fp32: ")


def test_the_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "smollm2" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a recipe (`python -m build list`), or --name and --source"),
        (["--name", "mini"], "or --name and --source"),
        (["smollm3"], "recipe 'smollm3': unknown; there are"),
        (["--name", "Mini", "--source", "x"], "name: 'Mini', must be lower-case"),
        (["--name", "mini", "--source", "hub"], "names no hub id"),
        (["smollm2", "--source", "./absent"], "no such folder; expected"),
    ],
)
def test_a_faulty_command_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--repository", str(tmp_path / "repository")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["gpt2"], "python -m build gpt2 --source ./gpt2"),
        (["--name", "mine", "--source", "org/model@v1"], "python -m build --name mine --source ./model"),
    ],
)
def test_a_hub_out_of_reach_says_how_to_build_from_a_folder(
    arguments: list[str],
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "resolve_revision", unreachable)
    assert main([*arguments, "--repository", str(tmp_path / "repository")]) == 1
    err = capsys.readouterr().err
    assert "run `hf download o" in err
    assert err.endswith(f"bring that folder here; then `{command}`\n")


TERMS = """
[terms]
name = "house"
title = "House Rules"
url = "https://example.org/rules"
summary = "forbid noise"
"""


def test_terms_are_accepted_before_a_build(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'name = "mine"\nsource = "{folder}"\n{TERMS}')
    arguments = [str(recipe), "--precision", "fp32", "--verify-tokens", "64"]
    arguments += ["--repository", str(tmp_path / "repository")]
    for accepted in ([], ["--accept-terms", "gemma"]):
        assert main([*arguments, *accepted]) == 2
        assert capsys.readouterr().err == (
            "error: terms: these weights come under the House Rules: they forbid noise;"
            " read https://example.org/rules, then add --accept-terms house\n"
        )
    assert not (tmp_path / "repository").exists()
    assert main([*arguments, "--accept-terms", "house"]) == 0
    manifest = json.loads((tmp_path / "repository/mine_engine/1/manifest.json").read_text())
    assert manifest["recipe"]["terms"]["name"] == "house"


def test_the_weights_of_gemma_are_not_fetched_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gemma3-270m", "--repository", str(tmp_path)]) == 2
    assert "Gemma Terms of Use" in (error := capsys.readouterr().err)
    assert "read https://ai.google.dev/gemma/terms, then add --accept-terms gemma" in error


def test_a_failed_build_is_exit_code_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "strict.toml"
    recipe.write_text(f'name = "mine"\nsource = "{folder}"\n[limits.int8]\nagreement = 2\n')
    repository = tmp_path / "repository"
    assert main([str(recipe), "--repository", str(repository), "--verify-tokens", "64"]) == 1
    assert "nothing was published" in capsys.readouterr().err
    assert list(repository.iterdir()) == []


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ("0", "0, must be at least 2"),
        ("1", "1, must be at least 2"),
        ("-5", "-5, must be at least 2"),
        ("many", "'many', must be a whole number"),
    ],
)
def test_too_few_tokens_to_verify_on_are_refused(
    tokens: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["smollm2", "--verify-tokens", tokens])
    assert capsys.readouterr().err.endswith(f"argument --verify-tokens: {said}\n")


def test_the_folder_runs_as_a_program_from_the_root() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "build", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "python -m build smollm2 --precision fp32 --force" in shown.stdout
