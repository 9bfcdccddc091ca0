"""What holds for the repository as a whole: targets, pins, links, files of others, test runs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.paths import PYTHONPATH, ROOT

TARGETS = {
    "bench",
    "bench-peers",
    "chat",
    "check",
    "clean",
    "contract",
    "demo",
    "engines",
    "gpu-check",
    "help",
    "k8s-test",
    "load",
    "manifests",
    "load-soak",
    "load-sweep",
    "kernels",
    "kernels-check",
    "lock",
    "safety-evaluate",
    "safety-filter",
    "serve",
    "setup",
    "setup-k8s",
    "test",
    "test-avx2",
    "test-unit",
}
# A path of one machine: of a person's home, of a scratch folder.
PRIVATE = re.compile(r"(?<![\w.}])/(?:root|work|Users|home/(?!halimede)\w+|tmp/w)/")


def _make(*arguments: str) -> str:
    """As called by hand, even when make itself runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def _pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pinned = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {_normal(name): version for name, version in pinned}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tracked() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git work tree")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    found = [ROOT / name for name in listed.decode().split("\0") if (ROOT / name).is_file()]
    assert ROOT / "Makefile" in found
    return found


def test_every_target_is_phony_and_in_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS
    assert set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE)) == TARGETS
    assert set(re.findall(r"^  make ([a-z0-9-]+)", _make("help"), re.MULTILINE)) == TARGETS


def test_make_alone_is_help() -> None:
    assert _make() == _make("help")


def test_the_folder_build_is_neither_ignored_nor_removed() -> None:
    lines = (ROOT / ".gitignore").read_text().splitlines()
    assert not [line for line in lines if line.strip("/* ") == "build"]
    clean = _make("--dry-run", "clean")
    assert "rm -rf .venv" in clean
    assert not re.search(r"\bbuild\b", clean)
    assert any(path.parts[-2:] == ("build", "__main__.py") for path in _tracked())


def test_artifacts_are_ignored_and_configurations_are_not() -> None:
    _tracked()

    def ignored(path: str) -> bool:
        command = ["git", "check-ignore", "--quiet", "--no-index", path]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0

    assert ignored("model_repository/x_engine/1/model.onnx.data")
    assert not ignored("model_repository/x_engine/config.pbtxt")
    assert not ignored("model_repository/x/1/.gitkeep")


def test_no_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert not found


def test_the_lock_pins_every_requirement_as_it_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    lock = _pins("requirements.lock")
    requirements = [text.split(";")[0].strip() for group in groups for text in group]
    assert len(requirements) > 40
    for requirement in requirements:
        name = _normal(re.split(r"[\[<>=~! ]", requirement)[0])
        assert name in lock, f"{name} is not locked: make lock"
        if "==" in requirement:
            assert lock[name] == requirement.split("==")[1]


def test_the_lock_holds_no_hash_and_no_local_version() -> None:
    versions = _pins("requirements.lock").values()
    assert len(versions) > 100
    assert all(re.fullmatch(r"(\d+!)?[\w.]+", version) for version in versions)


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-gpu.txt"])
def test_the_images_have_the_versions_of_the_lock(file: str) -> None:
    lock = _pins("requirements.lock")
    image = _pins(f"server/{file}")
    assert {"numpy", "tokenizers"} <= image.keys()
    assert image == {name: lock[name] for name in image}


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them: a second one of a name has -1."""
    without_code = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", without_code, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        same = sum(1 for other in found if re.fullmatch(rf"{name}(-\d+)?", other))
        found.add(f"{name}-{same}" if same else name)
    return found


def test_every_link_of_the_documentation_leads_to_a_file_and_a_heading() -> None:
    pages = [path for path in _tracked() if path.suffix == ".md" and path.parent in (ROOT, ROOT / "docs")]
    pages += (ROOT / "docs" / "runbooks").glob("*.md")
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    ]
    local = [(page, *link.partition("#")[::2]) for page, link in links if "://" not in link]
    assert len(local) > 50
    for page, path, heading in local:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path}"
        assert not heading or heading in _anchors(target), f"{page.name}: {path}#{heading}"


# Where nothing of our own stands.
CARRIED = ("k8s/crds", "safety/rules/weights")


def test_every_file_is_listed_with_its_hash() -> None:
    table = (ROOT / "THIRD_PARTY.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `([^`]+)` \| .+ \| `([0-9a-f]{64})` \|$", table, re.MULTILINE))
    found = {
        str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in CARRIED
        for path in (ROOT / folder).iterdir()
    }
    assert found
    assert listed == found


IGNORED = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_an_ignored_ctrl_c_interrupts_again() -> None:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    subprocess.run([sys.executable, "-c", IGNORED], cwd=ROOT, env=environment, check=True)
