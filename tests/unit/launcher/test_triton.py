"""Which tritonserver is found, and what it takes to run this Python in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launcher import Refusal
from launcher.machine import Interpreter, Platform, library_folder, this_interpreter
from launcher.triton import STUB, Triton, assemble_backends, find_triton

HERE = Platform("Linux", "x86_64", "glibc", "2.36")
ELSEWHERE = Platform("Linux", "aarch64", "glibc", "2.39")


def _write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def python(tmp_path: Path) -> Interpreter:
    """An interpreter whose site-packages carry a tritonserver for Python 3.11 and 3.12."""
    home = tmp_path / "site/pytriton/tritonserver"
    for version in ("3.9", "3.11", "3.12"):
        _write(home / "python_backend_stubs" / version / STUB)
    _write(home / "backends/python/libtriton_python.so")
    _write(home / "bin/tritonserver")
    _write(tmp_path / "lib/libpython3.11.so.1.0")
    packages = (tmp_path / "site",)
    folders = (tmp_path / "lib",)
    return Interpreter("3.11", tmp_path / "bin", packages, "libpython3.11.so.1.0", folders, "1.26.4")


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    monkeypatch.setattr("launcher.triton.NGC_SERVER", tmp_path / "none")
    return {"PATH": str(tmp_path / "empty")}


def test_this_interpreter_is_described() -> None:
    found = this_interpreter()
    assert found.library == f"libpython{found.version}.so.1.0"
    assert (found.programs / "python3").exists()
    assert (found.packages[0] / "numpy").is_dir()


def test_missing_libpython_names_the_package(python: Interpreter) -> None:
    missing = dataclasses.replace(python, library="libpython3.11.so.9", library_folders=())
    with pytest.raises(Refusal) as refused:
        library_folder(missing)
    message = str(refused.value)
    assert "libpython3.11.so.9 is missing" in message
    assert "apt-get install libpython3.11" in message
    assert "dnf install" in message
    assert "--enable-shared" in message


def test_the_wheel_is_used_when_nothing_is_installed(python: Interpreter, no_server: dict[str, str]) -> None:
    found = find_triton(no_server, python, HERE)
    assert found.server.parts[-2:] == ("bin", "tritonserver")
    assert found.stub is not None
    assert found.stub.parent.name == "3.11"
    assert found.libraries == (python.packages[0] / "nvidia_pytriton.libs", *python.library_folders)


def test_an_installed_server_wins(python: Interpreter, tmp_path: Path) -> None:
    server = _write(tmp_path / "opt/bin/tritonserver")
    server.chmod(0o755)
    _write(tmp_path / "opt/backends/python" / STUB)
    found = find_triton({"PATH": str(server.parent)}, python, ELSEWHERE)
    assert found == Triton(server, tmp_path / "opt/backends", None, ())
    assert find_triton({"PATH": "", "TRITON_SERVER": str(server)}, python, ELSEWHERE) == found


def test_an_installed_server_without_python_backend(python: Interpreter, tmp_path: Path) -> None:
    server = _write(tmp_path / "opt/bin/tritonserver")
    server.chmod(0o755)
    with pytest.raises(Refusal, match="no Python backend"):
        find_triton({"TRITON_SERVER": str(server)}, python, HERE)


def test_no_server_anywhere(python: Interpreter, no_server: dict[str, str]) -> None:
    with pytest.raises(Refusal, match="make setup"):
        find_triton(no_server, dataclasses.replace(python, packages=()), HERE)


def test_a_python_without_stub(python: Interpreter, no_server: dict[str, str]) -> None:
    with pytest.raises(Refusal, match=r"no stub for Python 3\.14, only for 3\.9, 3\.11, 3\.12"):
        find_triton(no_server, dataclasses.replace(python, version="3.14"), HERE)


def test_the_wheel_is_for_one_platform(python: Interpreter, no_server: dict[str, str]) -> None:
    with pytest.raises(Refusal, match="this is Linux aarch64"):
        find_triton(no_server, python, ELSEWHERE)


def test_numpy_2_is_refused(python: Interpreter, no_server: dict[str, str]) -> None:
    with pytest.raises(Refusal, match=r"numpy 2\.3\.1 is installed"):
        find_triton(no_server, dataclasses.replace(python, numpy_version="2.3.1"), HERE)


def test_backends_are_assembled_once(python: Interpreter, no_server: dict[str, str], tmp_path: Path) -> None:
    ours = tmp_path / "server"
    _write(ours / "backends/llm_engine/model.py")
    _write(ours / "engine/__init__.py")
    triton = find_triton(no_server, python, HERE)
    roots = (Path("/proc/not-writable"), tmp_path / "cache")
    folder = assemble_backends(triton, ours, roots)
    assert not (folder / "python" / "libtriton_python.so").is_symlink()
    assert (folder / "python" / STUB).is_file()
    assert (folder / "python/engine/__init__.py").is_file()
    assert (folder / "llm_engine/model.py").is_file()
    assert assemble_backends(triton, ours, roots) == folder
    assert list(folder.parent.iterdir()) == [folder]
