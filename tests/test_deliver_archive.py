"""Deliveries from archives: resumed, checked, and nothing in them leads out of the folder."""

from __future__ import annotations

import io
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from tests.stores import Faults, packed, repository, run, tree, web


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return repository(tmp_path / "source")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _same(source: Path, to: Path) -> bool:
    return tree(source) == tree(to) and run("verify", str(to)).returncode == 0


@pytest.mark.parametrize("name", ["models.tar", "models.tar.gz"])
def test_an_archive_over_http(source: Path, to: Path, tmp_path: Path, name: str) -> None:
    archive = packed(source, tmp_path / name)
    faults = Faults(cut={name: [1000]})
    with web(tmp_path, faults) as url:
        digest = sha256(archive.read_bytes()).hexdigest()
        done = run(f"{url}/{name}?token=1", str(to), "--sha256", digest)
    assert done.returncode == 0, done.stderr
    assert [wanted for _, wanted, _ in faults.asked] == [None, "bytes=1000-"]
    assert _same(source, to)


def test_a_damaged_archive_and_another_hash(source: Path, to: Path, tmp_path: Path) -> None:
    archive = packed(source, tmp_path / "models.tar.gz")
    done = run(str(archive), str(to), "--sha256", "0" * 64)
    assert (done.returncode, "--sha256 says 000" in done.stderr) == (3, True)
    archive.write_bytes(archive.read_bytes()[:-200])
    done = run(str(archive), str(to))
    assert (done.returncode, "not a whole archive" in done.stderr) == (3, True)
    assert run(str(packed(source, archive)), str(to)).returncode == 0
    assert _same(source, to)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return member


@pytest.mark.parametrize(
    "member",
    [
        _member("../evil"),
        _member("/tmp/evil"),
        _member("small/../../evil"),
        _member("small/link", tarfile.SYMTYPE, "/etc"),
        _member("small/hard", tarfile.LNKTYPE, "../evil"),
        _member("small/device", tarfile.CHRTYPE),
        _member("small/fifo", tarfile.FIFOTYPE),
    ],
)
def test_an_archive_that_leads_out_is_refused(to: Path, tmp_path: Path, member: tarfile.TarInfo) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(member, io.BytesIO(b"x"))
    done = run(str(tmp_path / "evil.tar"), str(to))
    assert done.returncode == 2, done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name in {"evil", "link", "hard", "fifo"}]
