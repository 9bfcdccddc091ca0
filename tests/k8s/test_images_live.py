"""The server's image without a container engine: its files, its ENTRYPOINT and its HEALTHCHECK, for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.launched import Launched
from tests.k8s.dockerfiles import read
from tests.live.artifacts import built
from tests.live.wire import Address, ask
from tests.live.wire_http import HttpWire
from tests.paths import ROOT

FILES = ("server/Dockerfile", "build/Dockerfile", "loadtest/Dockerfile")
# It wants a tag where the base is named, and ours is an ARG; tests/unit/k8s/test_images.py looks at that.
KEPT = ("--skip-check", "CKV_DOCKER_7")


def _checkov(tools: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    files = [word for path in paths for word in ("--file", str(path))]
    command = [
        str(tools / "checkov"),
        "--framework",
        "dockerfile",
        "--skip-download",
        "--compact",
        "--quiet",
        *KEPT,
        *files,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_checkov_finds_nothing(tools: Path) -> None:
    done = _checkov(tools, *(ROOT / path for path in FILES))
    assert done.returncode == 0, done.stdout


def test_checkov_would_find_something(tools: Path, tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text("FROM debian:latest\nUSER root\n")
    done = _checkov(tools, planted)
    assert done.returncode == 1
    assert "CKV_DOCKER" in done.stdout


@pytest.mark.e2e
def test_the_image_serves_a_delivered_model_and_writes_to_tmp_alone(tmp_path: Path) -> None:
    image = read("server/Dockerfile")
    root = image.replay(tmp_path / "image")
    home = root / "opt/halimede"
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    source = tmp_path / "source"
    subprocess.run(["cp", "-rl", built("int8"), source], check=True)
    deliver = [sys.executable, str(home / "server/deliver")]
    subprocess.run([*deliver, "seal", str(source)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*deliver, str(source), str(home / "model_repository")], check=True)
    # Triton's stub heeds no PYTHONDONTWRITEBYTECODE: byte code is in the image, or it would write it there.
    (code,) = [stage for stage in image.stages if stage.name == "code"]
    compiled = code.one("RUN").replace("/opt/halimede", str(home)).split()
    subprocess.run([sys.executable, *compiled[1:]], check=True)
    for path in root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = _state(root)

    entry = [word.replace("/opt/halimede", str(home)) for word in image.last.program("ENTRYPOINT")]
    set_ = {name: value.replace("/tmp", str(tmp)) for name, value in image.last.environment.items()}
    server = Launched(
        tmp_path / "log",
        *entry[2:],
        "--host",
        "127.0.0.1",
        program=Path(entry[1]),
        environment={**os.environ, **set_},
        folder=home / "server",
    )
    try:
        ports = server.wait_ready().ports
        health = [word.replace("8000", str(ports["http"])) for word in image.last.program("HEALTHCHECK")]
        check = [sys.executable, *health[1:]]
        assert subprocess.run(check, check=False).returncode == 0
        wire = HttpWire(Address(server.at("http"), server.at("grpc")))
        assert ask(wire, "Once upon a", max_tokens=1).tokens == 1
    finally:
        ended = server.stop()
    assert ended == 0
    assert subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode == 1
    assert _state(root) == before
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)  # or pytest could not remove it


def _state(root: Path) -> dict[str, tuple[int, int]]:
    """The size and the time of change of every file and folder."""
    found = ((path.relative_to(root), path.stat()) for path in root.rglob("*"))
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found}
