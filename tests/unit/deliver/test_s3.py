"""s3:// against rclone's S3 server, which checks signatures: both ends are real."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtest.ports import held_ports
from tests.fakes.stores import WEIGHTS, Faults, packed, repository, run, tree, web
from tests.live.serving import eventually

RCLONE = Path(sys.executable).with_name("rclone")


@dataclass(frozen=True, slots=True)
class Store:
    folder: Path  # its buckets
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("s3")
    repository(folder / "bucket/models/v1")
    packed(folder / "bucket/models/v1", folder / "bucket/models.tar.gz")
    with held_ports(1) as (port,), (folder / "log").open("wb") as log:
        address = f"127.0.0.1:{port}"
        command = [str(RCLONE), "serve", "s3", "--addr", address, "--auth-key", "key,secret", str(folder)]
        command += ["--config", "/dev/null", "--vfs-cache-mode", "off", "--dir-cache-time", "0"]
        environment = {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        with subprocess.Popen(command, stderr=log) as server:
            try:
                assert eventually(lambda: _answers(port)), (folder / "log").read_text()
                yield Store(folder, environment)
            finally:
                server.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def test_a_repository_in_a_bucket(store: Store, tmp_path: Path) -> None:
    done = run("s3://bucket/models/v1", str(tmp_path), env=store.environment)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == tree(store.folder / "bucket/models/v1")


def test_an_archive_in_a_bucket_and_one_model_of_it(store: Store, tmp_path: Path) -> None:
    done = run("s3://bucket/models.tar.gz", str(tmp_path), "--model", "other", env=store.environment)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {".deliver.lock", "files.json", "other"}


def test_goes_on_after_what_an_earlier_delivery_got(store: Store, tmp_path: Path) -> None:
    """Without signatures any web server speaks as much of S3 as a delivery needs."""
    weights = f"bucket/models/v1/{WEIGHTS}"
    part = tmp_path / ".delivering/files" / f"{WEIGHTS}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes((store.folder / weights).read_bytes()[:200_000])
    faults = Faults(cut={weights: [100_000, 0]})
    with web(store.folder, faults) as url:
        environment = {"AWS_ENDPOINT_URL": url, "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": "us-east-1"}
        done = run("s3://bucket/models/v1", str(tmp_path), env=environment)
    assert done.returncode == 0, done.stderr
    asked = [str(wanted) for path, wanted, _ in faults.asked if path == weights]
    assert len(asked) >= 3
    begins = [int(wanted.removeprefix("bytes=").partition("-")[0]) for wanted in asked]
    assert begins[0] == 200_000
    assert begins == sorted(begins)  # the library itself goes on where a connection ended, too
    assert tree(tmp_path) == tree(store.folder / "bucket/models/v1")


def test_begins_again_where_the_store_sends_the_whole_file(store: Store, tmp_path: Path) -> None:
    part = tmp_path / ".delivering/files" / f"{WEIGHTS}.part"
    part.parent.mkdir(parents=True)
    whole = (store.folder / "bucket/models/v1" / WEIGHTS).read_bytes()
    part.write_bytes(whole[:500_000])
    done = run("s3://bucket/models/v1", str(tmp_path), env=store.environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / WEIGHTS).read_bytes() == whole


@pytest.mark.parametrize(
    ("url", "changes", "told"),
    [
        ("s3://bucket/none", {}, "s3://bucket/none/files.json: not found"),
        ("s3://bucket/models/v1", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "forbidden: may this Pod read it?"),
    ],
)
def test_a_refusal_of_the_store_is_explained(
    store: Store, tmp_path: Path, url: str, changes: Mapping[str, str], told: str
) -> None:
    done = run(url, str(tmp_path), "--attempts", "1", env={**store.environment, **changes})
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr


def test_content_that_is_wrong_in_the_bucket(store: Store, tmp_path: Path) -> None:
    wrong = repository(store.folder / "bucket/wrong") / "small_engine/1/manifest.json"
    wrong.write_bytes(wrong.read_bytes().replace(b"chat", b"chap"))
    done = run("s3://bucket/wrong", str(tmp_path), env=store.environment)
    assert (done.returncode, "manifest.json: not what its sha256 says" in done.stderr) == (3, True), (
        done.stderr
    )


def test_google_storage_is_spoken_too(store: Store, tmp_path: Path) -> None:
    """Without credentials or a metadata server it says what is missing; no store of Google's is here."""
    environment = {
        "HOME": str(tmp_path),
        "GCE_METADATA_HOST": "127.0.0.1:9",
        "GCE_METADATA_ROOT": "127.0.0.1:9",
    }
    done = run("gs://bucket/models", str(tmp_path / "to"), "--attempts", "1", env=environment)
    assert done.returncode in {1, 2}
    assert "gs://bucket/models" in done.stderr
    assert "Traceback" not in done.stderr
