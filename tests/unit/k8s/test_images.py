"""The Dockerfiles: linted, hardened, and what they copy is enough to start what they start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.k8s.dockerfiles import Dockerfile, read
from tests.models import tiny
from tests.paths import ROOT

HADOLINT = Path(sys.executable).with_name("hadolint")
FILES = ("server/Dockerfile", "build/Dockerfile", "loadtest/Dockerfile")


@pytest.fixture(params=FILES)
def image(request: pytest.FixtureRequest) -> Dockerfile:
    return read(str(request.param))


def _lint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing(image: Dockerfile) -> None:
    done = _lint(image.path)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text("FROM debian:12\nRUN apt-get install curl\nCMD curl\n")
    assert _lint(planted).returncode == 1


def test_bases_are_pinned_to_a_version_and_can_be_pinned_to_a_digest(image: Dockerfile) -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    names = {re.sub(r"[${}]", "", stage.base) for stage in image.stages}
    assert names
    for name in names:
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image.arguments[name])
        assert f"--build-arg {name}={image.arguments[name]}@sha256:" in page


def test_it_runs_as_a_number_that_is_not_root_and_says_what_it_is(image: Dockerfile) -> None:
    assert image.last.one("USER") == "10001"  # a number: Kubernetes checks runAsNonRoot by it
    last = [keyword for keyword, _ in image.last.instructions]
    assert not {"RUN", "COPY"} & set(last[last.index("USER") :])
    assert image.last.all("HEALTHCHECK")
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", image.last.one("LABEL")))
    assert labels == {"title", "description", "licenses", "version", "revision"}


def test_nothing_is_written_outside_of_tmp(image: Dockerfile) -> None:
    environment = image.last.environment
    assert environment["HOME"] == "/tmp"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_every_source_is_there_and_sent(image: Dockerfile) -> None:
    made = {stage.name for stage in image.stages}
    copies = [copy for stage in image.stages for copy in image.copies(stage)]
    assert len(copies) == len(re.findall("^COPY ", image.path.read_text(), re.MULTILINE)) > 0
    assert {origin for origin, _, _ in copies if origin is not None} <= made
    for source in [source for origin, sources, _ in copies if origin is None for source in sources]:
        assert (ROOT / source).exists(), source
        assert image.is_sent(source), f"{source} is kept back by .dockerignore"


def test_what_no_image_needs_is_not_sent(image: Dockerfile) -> None:
    kept_back = (
        "model_repository",
        ".git",
        ".venv",
        "tests",
        "server/engine/__pycache__",
        "server/kernels/libhalimede-avx2-0123456789ab.so",
        "server/kernels/.compiling-x/cpu.o",
    )
    assert not [path for path in kept_back if image.is_sent(path)]


def test_what_pip_installs_exists_and_is_not_cached(image: Dockerfile) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    steps = [image.value(rest) for stage in image.stages for rest in stage.all("RUN")]
    installs = [part for rest in steps for part in rest.split("&&") if "install -" in part and "pip" in part]
    assert installs
    for part in installs:
        assert "--no-cache-dir" in part
        named = re.findall(r"\.\[([\w,-]+)\]", part)
        assert {extra for found in named for extra in found.split(",")} <= set(extras)
    page = (ROOT / "docs" / "install.md").read_text()
    documented = re.findall(r"--build-arg EXTRAS=([\w,-]+)", page)
    assert documented
    assert {extra for found in documented for extra in found.split(",")} <= set(extras)


def _start(layout: Path, image: Dockerfile, *program: str, tmp: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program with the copied files and the image's environment; our checkout is out of reach."""
    own = {"PYTHONPATH", "PATH"}
    environment = {name: value for name, value in image.last.environment.items() if name not in own}
    paths = image.last.environment.get("PYTHONPATH", "")
    environment |= {"HOME": str(tmp), "PATH": os.environ["PATH"]}
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(f"{layout}{path}" for path in paths.split(":"))
    return subprocess.run(
        [sys.executable, *(word.replace("/opt/halimede", f"{layout}/opt/halimede") for word in program)],
        cwd=layout / image.last.one("WORKDIR").lstrip("/"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("path", "program"),
    [
        ("server/Dockerfile", ()),
        ("server/Dockerfile", ("-m", "deliver")),
        ("server/Dockerfile", ("/opt/halimede/server/deliver",)),
        ("server/Dockerfile", ("/opt/halimede/server/drain.py",)),
        ("build/Dockerfile", ()),
        ("build/Dockerfile", ("-m", "deliver")),
        ("loadtest/Dockerfile", ()),
    ],
)
def test_its_programs_start_from_what_was_copied(path: str, program: tuple[str, ...], tmp_path: Path) -> None:
    image = read(path)
    layout = image.replay(tmp_path / "image")
    done = _start(layout, image, *(program or image.last.program("ENTRYPOINT")[1:]), "--help", tmp=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples:" in done.stdout or "usage:" in done.stdout


def test_the_builder_builds_from_what_was_copied(tmp_path: Path) -> None:
    """It asks a program of the server what cores and memory it has."""
    image = read("build/Dockerfile")
    layout = image.replay(tmp_path / "image")
    source = tiny.write_folder(tmp_path / "checkpoint")
    command = [*image.last.program("ENTRYPOINT")[1:], "--name", "mini", "--source", str(source)]
    command += ["--precision", "fp32", "--verify-tokens", "64", "--repository", str(tmp_path / "models")]
    done = _start(layout, image, *command, tmp=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "models/mini_engine/1/manifest.json").is_file()


def test_a_file_that_is_not_copied_would_be_missed(tmp_path: Path) -> None:
    image = read("server/Dockerfile")
    layout = image.replay(tmp_path / "image")
    (layout / "opt/halimede/server/launcher/ports.py").unlink()
    assert (
        _start(layout, image, *image.last.program("ENTRYPOINT")[1:], "--help", tmp=tmp_path).returncode == 1
    )


def test_byte_code_of_the_server_compiles_as_the_image_does_it(tmp_path: Path) -> None:
    image = read("server/Dockerfile")
    layout = image.replay(tmp_path / "image")
    (code,) = [stage for stage in image.stages if stage.name == "code"]
    step = code.one("RUN").replace("/opt/halimede", f"{layout}/opt/halimede").split()
    assert step[0] == "python3"
    assert subprocess.run([sys.executable, *step[1:]], check=False).returncode == 0
    assert list(layout.rglob("launcher/__pycache__/ports.*.pyc"))
