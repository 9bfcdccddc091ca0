"""Whole deliveries by the program: from a folder, a web server and archives; faults end as its help says."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import network_locks
from tests.fakes.certificates import write_certificate
from tests.fakes.stores import CONTENT, DELIVER, WEIGHTS, Faults, repository, run, same, web

LIBC = ctypes.CDLL(None)
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return repository(tmp_path / "source")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _may_not_write_anywhere() -> None:
    """In a child of root: what it starts obeys the permissions of files, as everybody else does."""
    if os.geteuid() == 0 and LIBC.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE):
        raise OSError("prctl")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_copied_once(source: Path, to: Path, form: str) -> None:
    assert run(form.format(source), str(to)).returncode == 0
    assert same(source, to)
    before = (to / WEIGHTS).stat().st_ino
    done = run(form.format(source), str(to))
    assert (done.returncode, (to / WEIGHTS).stat().st_ino) == (0, before)
    assert "0 MB were fetched" in done.stderr


def test_over_http_with_spaces_and_only_the_wanted_models(source: Path, to: Path) -> None:
    with web(source) as url:
        assert run(url, str(to), "--model", "other").returncode == 0
        assert {path.name for path in to.iterdir()} == {".deliver.lock", "files.json", "other"}
        assert run(f"{url}/", str(to), "--model", "small").returncode == 0
        unknown = run(url, str(to), "--model", "third")
    assert same(source, to)
    assert unknown.returncode == 2
    assert "--model third: not in the source, which has other, small" in unknown.stderr


def test_goes_on_where_the_connection_ended(source: Path, to: Path) -> None:
    faults = Faults(cut={WEIGHTS: [200_000, 100_000]}, statuses={"files.json": [503]})
    with web(source, faults) as url:
        done = run(url, str(to))
    assert done.returncode == 0, done.stderr
    ranges = [wanted for path, wanted, _ in faults.asked if path == WEIGHTS]
    assert ranges == [None, "bytes=200000-", "bytes=300000-"]
    assert same(source, to)


def test_begins_again_where_the_server_knows_no_ranges(source: Path, to: Path) -> None:
    with web(source, Faults(cut={WEIGHTS: [200_000]}, ranges=False)) as url:
        assert run(url, str(to)).returncode == 0
    assert same(source, to)


def test_a_delivery_that_gave_up_is_taken_up_by_the_next(source: Path, to: Path) -> None:
    faults = Faults(cut={WEIGHTS: [200_000]}, statuses={WEIGHTS: []})
    with web(source, faults) as url:
        cut = run(url, str(to), "--attempts", "1")
        assert cut.returncode == 1
        assert f"{WEIGHTS}: ended 324288 bytes too early; given up after 1 attempts" in cut.stderr
        assert not (to / "small_engine").exists()
        assert run(url, str(to)).returncode == 0
    assert [wanted for path, wanted, _ in faults.asked if path == WEIGHTS] == [None, "bytes=200000-"]
    assert same(source, to)


def test_a_killed_delivery_leaves_no_partial_model_and_is_continued(source: Path, to: Path) -> None:
    faults = Faults(statuses={WEIGHTS: [503] * 50})
    with web(source, faults) as url:
        command = [sys.executable, str(DELIVER), url, str(to), "--attempts", "50"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while not any(path == WEIGHTS for path, *_ in faults.asked):
                pass
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert sorted(path.name for path in to.iterdir()) == [".deliver.lock", ".delivering"]
        faults.statuses.clear()
        assert run(url, str(to)).returncode == 0
    assert same(source, to)


def test_content_that_is_wrong_at_the_source_is_never_put_in_place(source: Path, to: Path) -> None:
    with web(source, Faults(wrong={WEIGHTS})) as url:
        done = run(url, str(to))
    assert done.returncode == 3
    assert f"{WEIGHTS}: not what its sha256 says" in done.stderr
    assert not (to / "small_engine").exists()


def test_content_longer_than_listed_is_refused(source: Path, to: Path) -> None:
    with (source / WEIGHTS).open("ab") as file:
        file.write(b"more")
    with web(source) as url:
        done = run(url, str(to))
    assert done.returncode == 3
    assert "longer than the 524288 bytes that are listed" in done.stderr


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "forbidden: may this Pod"), (404, "not found: is this"), (401, "set DELIVER_AUTHORIZATION")],
)
def test_a_refusal_is_not_tried_again(source: Path, to: Path, status: int, told: str) -> None:
    faults = Faults(statuses={"files.json": [status] * 9})
    with web(source, faults) as url:
        done = run(f"{url}?signature=secret", str(to))
    assert (done.returncode, len(faults.asked)) == (1, 1)
    assert told in done.stderr
    assert "secret" not in done.stderr


def test_credentials_go_with_every_request(source: Path, to: Path) -> None:
    with web(source, Faults(authorization="Bearer b")) as url:
        assert run(url, str(to)).returncode == 1
        assert run(url, str(to), env={"DELIVER_AUTHORIZATION": "Bearer b\n"}).returncode == 0


def test_a_redirect_is_followed_but_takes_credentials_to_no_other_host(source: Path, to: Path) -> None:
    elsewhere = Faults()
    with web(source, elsewhere) as other:
        moved = Faults(authorization="Bearer b", moved={WEIGHTS: f"{other}/{WEIGHTS}"})
        with web(source, moved) as url:
            done = run(url, str(to), env={"DELIVER_AUTHORIZATION": "Bearer b"})
    assert done.returncode == 0, done.stderr
    assert elsewhere.asked == [(WEIGHTS, None, None)]
    assert same(source, to)


def test_a_private_certificate_must_be_trusted_and_https_is_not_redirected_to_http(
    source: Path, to: Path, tmp_path: Path
) -> None:
    write_certificate(tmp_path, authority=False)
    trusted = {"SSL_CERT_FILE": str(tmp_path / "tls.crt")}
    with web(source) as plain, web(source, moved := Faults(), tmp_path) as url:
        unknown = run(url, str(to), "--attempts", "1")
        assert run(url, str(to), env=trusted).returncode == 0
        moved.moved["files.json"] = f"{plain}/files.json"
        downgraded = run(url, str(to), "--attempts", "1", env=trusted)
    assert (unknown.returncode, "UnknownIssuer" in unknown.stderr) == (1, True), unknown.stderr
    assert (downgraded.returncode, "redirect" in downgraded.stderr) == (1, True), downgraded.stderr
    assert same(source, to)


def test_a_server_that_is_not_there_is_given_up(to: Path, source: Path) -> None:
    with web(source) as url:
        pass
    done = run(url, str(to), "--attempts", "2")
    assert done.returncode == 1
    assert "(Connection refused); given up after 2 attempts" in done.stderr


def test_listed_hashes_can_be_pinned(source: Path, to: Path) -> None:
    digest = run("seal", str(source)).stdout.split()[0]
    assert run(str(source), str(to), "--sha256", digest.upper()).returncode == 0
    other = run(str(source), str(to), "--sha256", "1" * 64)
    assert (other.returncode, "--sha256 says 111" in other.stderr) == (3, True)


def test_a_newer_source_replaces_its_models_and_keeps_the_others(
    source: Path, to: Path, tmp_path: Path
) -> None:
    assert run(str(source), str(to)).returncode == 0
    kept = (to / WEIGHTS).stat().st_ino
    newer = {path: data for path, data in CONTENT.items() if path.startswith("small")}
    del newer["small_engine/1/manifest.json"]
    newer["small_engine/2/manifest.json"] = b"{}"
    assert run(str(repository(tmp_path / "newer", newer)), str(to)).returncode == 0
    assert not (to / "small_engine/1/manifest.json").exists()
    assert (to / "small_engine/2/manifest.json").read_bytes() == b"{}"
    assert (to / WEIGHTS).stat().st_ino == kept  # linked, not fetched
    assert run("verify", str(to)).returncode == 0


def test_a_damaged_file_is_delivered_again(source: Path, to: Path) -> None:
    assert run(str(source), str(to)).returncode == 0
    (to / WEIGHTS).write_bytes(b"damaged")
    bad = run("verify", str(to))
    assert (bad.returncode, bad.stdout) == (3, f"{WEIGHTS}: not what its sha256 says\n")
    assert run(str(source), str(to)).returncode == 0
    assert same(source, to)


def test_without_obstore_it_says_what_to_install_and_verifies(source: Path, to: Path, tmp_path: Path) -> None:
    (tmp_path / "obstore.py").write_text('raise ModuleNotFoundError(name="obstore")')
    env = {"PYTHONPATH": str(tmp_path)}
    done = run(str(source), str(to), env=env)
    assert (done.returncode, "obstore is missing: pip install 'halimede[deliver]'" in done.stderr) == (
        2,
        True,
    )
    assert run("verify", str(source), env=env).returncode == 0


def _small_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_no_space_left_while_writing(source: Path, to: Path) -> None:
    done = run(str(source), str(to), before=_small_files)
    assert done.returncode == 4
    assert "no space left" in done.stderr
    assert not (to / "small_engine").exists()


def test_too_little_disk_space_is_an_error_before_anything_is_fetched(source: Path, to: Path) -> None:
    listing = source / "files.json"
    listing.write_text(listing.read_text().replace('"bytes": 524288', f'"bytes": {10**15}'))
    done = run(str(source), str(to))
    assert done.returncode == 4
    assert "1000000000.5 MB are needed" in done.stderr or "1000000000.0 MB are needed" in done.stderr


def test_a_destination_that_is_a_file(source: Path, to: Path) -> None:
    to.write_text("")
    done = run(str(source), str(to))
    assert (done.returncode, "cannot be written" in done.stderr) == (4, True)


def test_a_destination_that_is_another_users(source: Path, to: Path) -> None:
    to.mkdir(mode=0o500)
    done = run(str(source), str(to), before=_may_not_write_anywhere)
    assert (done.returncode, "who owns the volume" in done.stderr) == (4, True)


def test_a_destination_that_is_not_writable_is_an_error(source: Path) -> None:
    done = run(str(source), "/sys/models")
    assert (done.returncode, "/sys/models: cannot be written" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ftp://host/x", "TO"], "must begin with file://"),
        (["http://[::1", "TO"], "argument source: Invalid IPv6 URL: must be a URL or a folder"),
        (["SOURCE/small", "TO"], "files.json: not found"),
        (["SOURCE", "TO", "--jobs", "0"], "argument --jobs: 0, must be 1 to 64"),
        (["SOURCE", "TO", "--sha256", "12"], "must be 64 hexadecimal digits"),
        (["verify", "TO"], "python -m deliver seal"),
        (["seal", "TO"], "has no model"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(source: Path, to: Path, arguments: list[str], told: str) -> None:
    places = {"SOURCE": str(source), "TO": str(to)}
    done = run(*[places.get(a, a.replace("SOURCE", str(source))) for a in arguments])
    assert done.returncode in {1, 2}
    assert told in done.stderr


def test_two_at_a_time_take_turns_also_where_folders_cannot_be_locked(
    source: Path, to: Path, tmp_path: Path
) -> None:
    """The second finds the first at work, waits, and has nothing left to fetch."""
    faults = Faults(statuses={WEIGHTS: [503] * 50})
    with web(source, faults) as url:
        command = [sys.executable, str(DELIVER), url, str(to), "--attempts", "50"]
        env = {**os.environ, **network_locks.environment(tmp_path)}
        first, second = (
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) for _ in range(2)
        )
        lines = [_line_of_either(first, second)]
        while "another delivery" not in lines[-1]:
            lines.append(_line_of_either(first, second))
        faults.statuses.clear()
        told = [process.communicate()[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert sum("0 MB were fetched" in text for text in told) == 1
    assert [path for path, *_ in faults.asked if path.startswith("small/")] == ["small/config.pbtxt"]
    assert same(source, to)


def _line_of_either(*processes: subprocess.Popen[str]) -> str:
    pipes = [process.stderr for process in processes if process.stderr]
    ready, _, _ = select.select(pipes, [], [], 60)
    assert ready, "neither says anything"
    return str(ready[0].readline())
