"""Deliveries from archives: resumed, checked, and nothing in them leads out of the folder."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from deliver.archive import unpack
from deliver.faults import NotWritten
from deliver.progress import Progress
from tests.fakes.stores import CONTENT, WEIGHTS, Faults, packed, repository, run, same, web


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return repository(tmp_path / "source")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.mark.parametrize("name", ["models.tar", "models.tar.gz"])
def test_an_archive_over_http(source: Path, to: Path, tmp_path: Path, name: str) -> None:
    archive = packed(source, tmp_path / name)
    faults = Faults(cut={name: [1000]})
    with web(tmp_path, faults) as url:
        digest = sha256(archive.read_bytes()).hexdigest()
        done = run(f"{url}/{name}?token=1", str(to), "--sha256", digest)
    assert done.returncode == 0, done.stderr
    assert [wanted for _, wanted, _ in faults.asked] == [None, "bytes=1000-"]
    assert f"{archive.stat().st_size / 1e6:.0f} MB were fetched" in done.stderr
    assert same(source, to)


def test_a_damaged_archive_and_another_hash(source: Path, to: Path, tmp_path: Path) -> None:
    archive = packed(source, tmp_path / "models.tar.gz")
    done = run(str(archive), str(to), "--sha256", "0" * 64)
    assert (done.returncode, "--sha256 says 000" in done.stderr) == (3, True)
    archive.write_bytes(archive.read_bytes()[:-200])
    done = run(str(archive), str(to))
    assert (done.returncode, "not a whole archive" in done.stderr) == (3, True)
    assert run(str(packed(source, archive)), str(to)).returncode == 0
    assert same(source, to)


def test_an_archive_whose_content_is_not_what_it_lists(source: Path, to: Path, tmp_path: Path) -> None:
    (source / WEIGHTS).write_bytes(CONTENT[WEIGHTS][:-1] + b"?")
    done = run(str(packed(source, tmp_path / "models.tar")), str(to))
    assert (done.returncode, f"{WEIGHTS}: not what its sha256" in done.stderr) == (3, True), done.stderr
    assert not (to / "small_engine").exists()


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


def test_the_rest_of_another_archive_is_never_put_behind_a_part(to: Path, tmp_path: Path) -> None:
    """The source replaced the archive, of equal length, while nobody asked."""
    name = "models.tar"
    older = repository(tmp_path / "older", {**CONTENT, WEIGHTS: bytes(524_288)})
    newer = repository(tmp_path / "newer")
    size = packed(older, tmp_path / name).stat().st_size
    faults = Faults(cut={name: [300_000]})
    with web(tmp_path, faults) as url:
        assert run(f"{url}/{name}", str(to), "--attempts", "1").returncode == 1
        assert packed(newer, tmp_path / name).stat().st_size == size
        done = run(f"{url}/{name}", str(to))
    assert done.returncode == 0, done.stderr
    assert [wanted for _, wanted, _ in faults.asked] == [None, "bytes=300000-", None]
    assert same(newer, to)


def test_an_archive_of_another_url_begins_anew(source: Path, to: Path, tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        packed(source, tmp_path / name)
    faults = Faults(cut={"one.tar": [300_000]})
    with web(tmp_path, faults) as url:
        assert run(f"{url}/one.tar", str(to), "--attempts", "1").returncode == 1
        assert run(f"{url}/two.tar", str(to)).returncode == 0
    assert faults.asked[-1][:2] == ("two.tar", None)
    assert same(source, to)


def test_a_source_that_tells_no_versions_is_asked_for_all_of_it(
    source: Path, to: Path, tmp_path: Path
) -> None:
    packed(source, tmp_path / "models.tar")
    faults = Faults(cut={"models.tar": [300_000]}, versions=False)
    with web(tmp_path, faults) as url:
        assert run(f"{url}/models.tar", str(to)).returncode == 0
    assert faults.asked[-1][1] is None
    assert same(source, to)


def _archive_of(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=9) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return path


def _sized(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def test_an_archive_that_unpacks_to_a_disk_of_zeros_is_refused(to: Path, tmp_path: Path) -> None:
    zeros = bytes(100 << 20)
    bomb = _archive_of(tmp_path / "bomb.tar.gz", [(_sized("small/1/zeros", len(zeros)), zeros)])
    assert bomb.stat().st_size < 1 << 20
    done = run(str(bomb), str(to))
    assert (done.returncode, "unpacks to more than 67 MB, 100 times" in done.stderr) == (2, True), done.stderr
    assert not (to / ".delivering" / "unpacked").exists()


def test_an_archive_of_too_many_members_is_refused(to: Path, tmp_path: Path) -> None:
    members = [(_sized(f"small/1/{number}", 0), b"") for number in range(10_001)]
    done = run(str(_archive_of(tmp_path / "many.tar.gz", members)), str(to))
    assert (done.returncode, "more than 10,000 members" in done.stderr) == (2, True), done.stderr


def test_a_header_that_would_fill_the_memory_is_refused(to: Path, tmp_path: Path) -> None:
    header = _sized("small/1/header", 32 << 20)
    header.type = tarfile.XHDTYPE
    done = run(str(_archive_of(tmp_path / "header.tar.gz", [(header, bytes(32 << 20))])), str(to))
    assert (done.returncode, "header of 33,554,432 bytes" in done.stderr) == (2, True), done.stderr


def test_room_for_an_archive_is_looked_for_before_it_is_fetched(to: Path, tmp_path: Path) -> None:
    """A file with a hole, larger than any disk here."""
    huge = tmp_path / "huge.tar"
    with huge.open("wb") as file:
        file.truncate(10**13)
    done = run(str(huge), str(to))
    assert done.returncode == 4, done.stderr
    assert "10000000.0 MB are needed" in done.stderr


def test_room_for_what_an_archive_holds_is_looked_for_before_it_is_unpacked(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the files once, and for the archive: unpacked files are renamed into place."""
    archive = packed(source, tmp_path / "models.tar.gz")
    needed = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    free = [needed - 1, needed]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free.pop(0)))
    with pytest.raises(NotWritten, match="are needed"):
        unpack(archive, tmp_path / "unpacked", print)
    assert not (tmp_path / "unpacked").exists()
    unpack(archive, tmp_path / "unpacked", print)
    assert (tmp_path / "unpacked" / WEIGHTS).read_bytes() == CONTENT[WEIGHTS]


def test_progress_of_an_archive_tells_how_much_is_to_come() -> None:
    lines: list[str] = []
    now = iter([0.0, 1.0, 6.0, 12.0])
    progress = Progress(0, lines.append, clock=lambda: next(now))
    progress.add(1_000_000)
    progress.expect(9_000_000)
    progress.add(5_000_000)
    progress.add(4_000_000)
    assert lines == ["6 of 10 MB fetched, 1.0 MB/s", "10 of 10 MB fetched, 0.8 MB/s"]
