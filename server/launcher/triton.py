"""The tritonserver on this machine, and the backend folder it is started with.

An installed server wins (TRITON_SERVER, PATH, the path in the NGC image); otherwise it is the one in the
nvidia-pytriton wheel. The wheel keeps one Python stub per Python version outside of the Python backend, and
Triton refuses a library that is a link out of its backend's folder. So a backend folder is assembled from
copies once, and kept. The stub ignores PYTHONPATH but puts the folder of the Python backend on sys.path:
there our steps find the package `engine` that they share.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher import Refusal
from launcher.machine import Interpreter, Platform, check_platform, library_folder

NGC_SERVER = Path("/opt/tritonserver/bin/tritonserver")
STUB = "triton_python_backend_stub"
SHARED_PACKAGE = "engine"
NUMPY_2 = (
    "numpy {version} is installed: this tritonserver crashes on string tensors with numpy 2 or newer; "
    "pip install 'numpy<2'"
)


@dataclass(frozen=True, slots=True)
class Triton:
    server: Path
    backends: Path
    stub: Path | None  # None where backends/python has its own
    libraries: tuple[Path, ...]  # for LD_LIBRARY_PATH


def find_triton(environ: Mapping[str, str], python: Interpreter, platform: Platform) -> Triton:
    """Raises Refusal when there is none, or when it cannot run on this machine or with this Python."""
    server = _installed_server(environ)
    if server is not None:
        return _installed(server)
    check_platform(platform)
    return _in_wheel(python)


def assemble_backends(triton: Triton, server: Path, roots: tuple[Path, ...]) -> Path:
    """A folder with Triton's backends and ours, under the first of `roots` that we can write to.

    The folder's name is a digest of its sources, so an existing folder is complete and may be shared.
    Raises Refusal when there is no such root, or no space left in it.
    """
    sources = _sources(triton, server)
    digest = hashlib.sha256(repr(sources).encode()).hexdigest()[:16]
    root = next((root for root in roots if _writable(root)), None)
    if root is None:
        raise Refusal(f"cannot write to any of {', '.join(map(str, roots))}; set XDG_CACHE_HOME")
    folder = root / f"backends-{digest}"
    if folder.is_dir():
        return folder
    new = Path(tempfile.mkdtemp(prefix=".backends-", dir=root))
    try:
        _fill(new, triton, server)
        new.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # or another launcher was faster
            raise Refusal(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _installed_server(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("TRITON_SERVER"):
        if not os.access(named, os.X_OK):
            raise Refusal(f"TRITON_SERVER={named}: no such program")
        return Path(named).resolve()
    found = shutil.which("tritonserver", path=environ.get("PATH"))
    if found is not None:
        return Path(found).resolve()
    return NGC_SERVER if NGC_SERVER.is_file() else None


def _installed(server: Path) -> Triton:
    home = server.parent.parent
    if not (home / "backends" / "python" / STUB).is_file():
        raise Refusal(f"{server}: no Python backend in {home / 'backends' / 'python'}")
    return Triton(server, home / "backends", None, ())


def _in_wheel(python: Interpreter) -> Triton:
    home = next((p / "pytriton/tritonserver" for p in python.packages if (p / "pytriton").is_dir()), None)
    if home is None:
        raise Refusal("no tritonserver found: make setup, or name one in TRITON_SERVER")
    stubs = home / "python_backend_stubs"
    stub = stubs / python.version / STUB
    if not stub.is_file():
        known = ", ".join(sorted((path.name for path in stubs.iterdir()), key=_by_number))
        raise Refusal(f"this tritonserver has no stub for Python {python.version}, only for {known}")
    if python.numpy_version is None:
        raise Refusal("numpy is not installed: make setup")
    if _by_number(python.numpy_version)[0] > 1:
        raise Refusal(NUMPY_2.format(version=python.numpy_version))
    wheel_libraries = home.parent.parent / "nvidia_pytriton.libs"
    return Triton(
        server=home / "bin" / "tritonserver",
        backends=home / "backends",
        stub=stub,
        libraries=(wheel_libraries, library_folder(python)),
    )


def _by_number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _sources(triton: Triton, server: Path) -> list[tuple[str, int, int]]:
    copied = [*(triton.backends / "python").iterdir(), *filter(None, [triton.stub])]
    linked = [*triton.backends.iterdir(), *(server / "backends").iterdir()]
    files = [(str(path), path.stat()) for path in copied if path.is_file()]
    sizes = [(name, found.st_size, found.st_mtime_ns) for name, found in files]
    return sorted(sizes + [(str(path), 0, 0) for path in linked if path.is_dir()])


def _writable(root: Path) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(root, os.W_OK | os.X_OK)


def _fill(folder: Path, triton: Triton, server: Path) -> None:
    python = shutil.copytree(
        triton.backends / "python", folder / "python", ignore=shutil.ignore_patterns("__pycache__")
    )
    if triton.stub is not None:
        shutil.copy2(triton.stub, python / STUB)
    (python / SHARED_PACKAGE).symlink_to(server / SHARED_PACKAGE)
    for backend in [*triton.backends.iterdir(), *(server / "backends").iterdir()]:
        if backend.is_dir() and backend.name not in ("python", "__pycache__"):
            (folder / backend.name).symlink_to(backend.resolve())
