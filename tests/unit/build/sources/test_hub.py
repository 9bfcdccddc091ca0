"""Checkpoints from a hub: a local server speaks its API, and huggingface_hub itself fetches from it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from build.sources.hub import other_files
from build.sources.hub_transport import PATIENCE_S, Patience
from tests.fakes.hub import (
    GRANTED,
    READER,
    Builder,
    Fault,
    Hub,
    Said,
    arguments,
    environment,
    files_of,
    serving,
)
from tests.models import tiny

CARD = b"---\nlicense: mit\n---\n"
DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small checkpoint, as it lies in a repository."""
    return files_of(tiny.write_folder(tmp_path_factory.mktemp("tiny") / "llama")) | {"README.md": CARD}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def started() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(started: Hub) -> Hub:
    started.faults.clear()
    started.asked.clear()
    return started


Started = Callable[..., Builder]


@pytest.fixture(scope="module")
def start(folder: Path) -> Iterator[Started]:
    """A builder with settings of its own; the cache is that of all."""
    builders: list[Builder] = []

    def start(endpoint: str, **env: str) -> Builder:
        builders.append(Builder(endpoint, folder, **env))
        return builders[-1]

    yield start
    for builder in builders:
        builder.close()


@pytest.fixture(scope="module")
def builder(started: Hub, start: Started) -> Builder:
    return start(started.address)


@pytest.fixture(scope="module")
def offline(started: Hub, start: Started) -> Builder:
    return start(started.address, HF_HUB_OFFLINE="1")


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "repository/mini_engine/1/manifest.json").read_text()))


def built(said: Said, folder: Path) -> dict[str, Any]:
    """The manifest's source of a build that said one line."""
    assert (said.code, said.err) == (0, "")
    assert said.out.count("\n") == 1
    return dict(manifest(folder)["source"])


def refused(said: Said, code: int, *words: str) -> None:
    """One line on stderr that holds the words."""
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("error: org/")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


def test_the_command_builds_from_a_private_repository(
    hub: Hub, files: dict[str, bytes], folder: Path, tmp_path: Path
) -> None:
    """Large files lie on another host, which must not see the token. Xet is offered, and not needed."""
    commit = hub.add("org/private", files, private=True)
    hub.xet = True
    env = environment(hub.address, tmp_path, HF_TOKEN=READER, HF_HUB_DISABLE_XET="1")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "build", *arguments("org/private", tmp_path)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        hub.xet = False
    source = built(Said(done.returncode, done.stdout, done.stderr), tmp_path)
    assert (source["kind"], source["id"], source["revision"]) == ("hub", "org/private", commit)
    assert source["licence"] == "mit"
    assert "model.safetensors" in source["files"]
    for name, digest in source["files"].items():
        assert digest == sha256(files[name]).hexdigest()
    assert {asked.headers.get("authorization") for asked in hub.requests("org/private")} == {
        f"Bearer {READER}"
    }
    (large,) = hub.requests("", host="cdn")
    assert "authorization" not in large.headers
    assert hub.requests(r"/tree/\w+\?.*cursor=")  # the list has several pages


def test_what_the_hub_redirects_to_another_host_goes_without_the_token(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    hub.add("org/redirected", files, private=True)
    built(builder.build("org/redirected", READER), folder)
    (large,) = hub.requests("", host="cdn")
    assert "authorization" not in large.headers


def test_a_second_build_asks_for_the_commit_alone(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    hub.add("org/again", files)
    first = built(builder.build("org/again"), folder)
    hub.asked.clear()
    assert built(builder.build("org/again"), folder) == first
    assert [asked.path for asked in hub.asked] == ["/api/models/org/again"]


def test_new_content_is_taken_by_the_next_build(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder, tmp_path: Path
) -> None:
    old = hub.add("org/moving", files)
    assert built(builder.build("org/moving"), folder)["revision"] == old
    changed = files | files_of(tiny.write_folder(tmp_path / "changed", seed=1))
    new = hub.repositories["org/moving"].commit(changed)
    source = built(builder.build("org/moving"), folder)
    assert source["revision"] == new
    assert source["files"]["model.safetensors"] == sha256(changed["model.safetensors"]).hexdigest()
    assert source["files"]["tokenizer.json"] == sha256(files["tokenizer.json"]).hexdigest()
    assert len(hub.requests(r"tokenizer\.json")) == 1  # it has not changed


def test_a_branch_a_tag_and_a_commit_are_revisions(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    first = hub.add("org/revised", files)
    repository = hub.repositories["org/revised"]
    repository.refs["v1.0+cpu"] = first
    pull = repository.commit(files | {"README.md": b"---\nlicense: apache-2.0\n---\n"}, "refs/pr/1")
    main = repository.commit(files | {"README.md": b""})
    for revision, commit in [("v1.0+cpu", first), ("refs/pr/1", pull), ("main", main), (first, first)]:
        assert built(builder.build(f"org/revised@{revision}"), folder)["revision"] == commit
    assert built(builder.build("org/revised"), folder)["revision"] == main
    hub.asked.clear()
    built(builder.build(f"org/revised@{pull}"), folder)
    assert hub.asked == []  # a commit that is in the cache needs no hub
    said = builder.build("org/revised@v2")
    refused(said, 2, "org/revised@v2: no such branch, tag or commit", f"{hub.address}/org/revised")
    said = builder.build(f"org/revised@{'0' * 40}")
    refused(said, 2, "no such branch, tag or commit")


def test_a_renamed_repository_is_found_under_its_new_name(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    commit = hub.add("org/new-name", files, private=True)
    hub.renamed["org/old-name"] = "org/new-name"
    assert built(builder.build("org/old-name", READER), folder)["revision"] == commit
    (config,) = hub.requests(r"/org/new-name/resolve/\w+/config\.json")
    assert config.headers["authorization"] == f"Bearer {READER}"  # the same host may have it


def test_a_download_that_is_cut_is_resumed_where_it_ended(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder, tmp_path: Path
) -> None:
    """huggingface_hub keeps whole pieces of 10 MiB."""
    path, piece = tmp_path / "model.safetensors", 10 << 20
    path.write_bytes(files["model.safetensors"])
    save_file(load_file(path), path, {"format": "pt", "pad": "x" * piece})
    content = path.read_bytes()
    hub.add("org/cut", files | {"model.safetensors": content})
    hub.faults.append(Fault("^cdn/", cut=piece + 50_000))
    source = built(builder.build("org/cut"), folder)
    assert source["files"]["model.safetensors"] == sha256(content).hexdigest()
    assert [a.headers.get("range") for a in hub.requests("", host="cdn")] == [None, f"bytes={piece}-"]


def test_only_what_transformers_would_load_is_fetched(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    """The single file, though there is an index with shards."""
    others = {
        **shards_of(files, folder),
        "adapter_model.safetensors": b"",
        "consolidated.safetensors": b"",
        "fp32/model.safetensors": b"",
        "model.fp16.safetensors": b"",
        "onnx/config.json": b"",
        "onnx/model.onnx": b"",
        "original/consolidated.00.pth": b"",
        "original/params.json": b"",
        "original/tokenizer.model": b"",
        "params.json": b"",
        "pytorch_model.bin": b"",
        "tf_model.h5": b"",
    }
    wanted = {
        **files,
        "added_tokens.json": b"{}",
        "additional_chat_templates/tools.jinja": b"",
        "chat_template.jinja": tiny.CHAT_TEMPLATE.encode(),
        "special_tokens_map.json": b"{}",
        "tokenizer.model": b"",
    }
    hub.add("org/crowded", others | wanted)
    built(builder.build("org/crowded"), folder)
    assert fetched(hub, "org/crowded") == set(wanted)


def shards_of(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """Two files of weights and their index."""
    apart = folder / "apart"
    shutil.rmtree(apart, ignore_errors=True)
    apart.mkdir()
    (apart / "model.safetensors").write_bytes(files["model.safetensors"])
    tiny.shard(apart)
    return files_of(apart)


def fetched(hub: Hub, name: str) -> set[str]:
    """Files of a repository whose facts or content were asked for."""
    asked = [a.path for a in hub.asked if a.path.startswith(f"/{name}/resolve/") and a.method == "HEAD"]
    return {path.split("/", 5)[5] for path in asked}


def test_shards_are_those_that_the_index_names(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    shards = shards_of(files, folder)
    without = {name: data for name, data in files.items() if name != "model.safetensors"}
    hub.add(
        "org/sharded", without | shards | {"model-00003-of-00003.safetensors": b"", "other.safetensors": b""}
    )
    source = built(builder.build("org/sharded"), folder)
    assert fetched(hub, "org/sharded") == {*without, *shards}
    weights = {name for name in shards if name.endswith(".safetensors")}
    assert {name for name in source["files"] if "safetensors" in name} == weights


def test_weights_that_the_config_names_are_taken(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder, tmp_path: Path
) -> None:
    settings = json.loads(files["config.json"]) | {"transformers_weights": "fp32/model.safetensors"}
    other = (tiny.write_folder(tmp_path / "other", seed=1) / "model.safetensors").read_bytes()
    changed = {"config.json": json.dumps(settings).encode(), "fp32/model.safetensors": other}
    hub.add("org/named", files | changed)
    source = built(builder.build("org/named"), folder)
    assert source["files"]["fp32/model.safetensors"] == sha256(other).hexdigest()
    assert fetched(hub, "org/named") == {*files, *changed} - {"model.safetensors"}


TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
for name in sys.argv[1:]:
    AutoTokenizer.from_pretrained(name)
    AutoModelForCausalLM.from_pretrained(name)
"""


@pytest.mark.parity
@pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")
def test_transformers_takes_the_same_files_from_the_same_hub(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder, tmp_path: Path
) -> None:
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tiny.SPECIALS[2]}
    both = files | shards_of(files, folder) | {"tokenizer_config.json": json.dumps(words).encode()}
    both |= {"additional_chat_templates/tools.jinja": b"", "chat_template.jinja": b""}
    both |= {"consolidated.safetensors": b"", "fp16/model.safetensors": b"", "model.fp16.safetensors": b""}
    without = {name: data for name, data in both.items() if name != "model.safetensors"}
    settings = json.loads(files["config.json"]) | {"transformers_weights": "model.fp16.safetensors"}
    named = {"config.json": json.dumps(settings).encode()}
    named["model.fp16.safetensors"] = files["model.safetensors"]
    contents, ours = {"org/both": both, "org/apart": without, "org/said": both | named}, {}
    for name, content in contents.items():
        hub.add(name, content)
        built(builder.build(name), folder)
        ours[name] = fetched(hub, name) - {"README.md"}
    hub.asked.clear()
    env = environment(hub.address, tmp_path, DISABLE_SAFETENSORS_CONVERSION="1")
    subprocess.run([sys.executable, "-c", TRANSFORMERS, *contents], env=env, check=True, capture_output=True)
    assert {name: fetched(hub, name) & set(content) for name, content in contents.items()} == ours


@given(st.lists(st.sampled_from(["original", "onnx", "fp32", "a"]), min_size=1, max_size=2), st.data())
def test_folders_of_a_repository_hold_nothing_that_is_read(folders: list[str], data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(["config.json", "tokenizer.json", "tokenizer.model", "a.spm", "a.jinja"])
    )
    path = "/".join([*folders, name])
    assert other_files([path, f"additional_chat_templates/{path}"]) == []


NO_CHECKPOINTS: list[tuple[str, dict[str, bytes], str]] = [
    (
        "pickled",
        {"config.json": b"{}", "pytorch_model.bin": b""},
        "from_pretrained('org/pickled', revision='main')",
    ),
    (
        "gguf",
        {"b.gguf": b"", "a.gguf": b""},
        "`hf download org/gguf a.gguf --revision main --local-dir gguf`",
    ),
    ("adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": b""}, "merge it into its base"),
    ("bare", {"model.safetensors": b""}, "has no config.json"),
    ("odd", {"config.json": b"{}", "weights.safetensors": b""}, "neither model.safetensors nor"),
    ("list", {"config.json": b"[]", "model.safetensors": b""}, "must hold a JSON object"),
]


@pytest.mark.parametrize(("name", "content", "message"), NO_CHECKPOINTS)
def test_a_repository_without_a_checkpoint_says_what_to_do(
    name: str, content: dict[str, bytes], message: str, hub: Hub, builder: Builder
) -> None:
    hub.add(f"org/{name}", content)
    said = builder.build(f"org/{name}@main")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert message in said.err
    assert hub.requests("", host="cdn") == []  # nothing large was fetched for it


def test_an_index_with_a_missing_shard_is_refused_before_the_download(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    shards = shards_of(files, folder)
    del shards["model-00002-of-00002.safetensors"]
    hub.add("org/torn", {name: data for name, data in files.items() if name != "model.safetensors"} | shards)
    refused(
        builder.build("org/torn"), 2, "index.json names model-00002-of-00002.safetensors: not in the repo"
    )
    assert hub.requests("", host="cdn") == []


def test_accounts(hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder) -> None:
    hub.add("org/open", files)
    hub.add("org/hidden", files, private=True)
    hub.add("org/gated", files, gated=True)
    wrong, terms = (
        "the hub does not accept the token of HF_TOKEN",
        f"accept its terms at {hub.address}/org/gated",
    )
    refused(builder.build("org/hidden"), 2, "not on the hub, or private (then set HF_TOKEN)")
    refused(builder.build("org/absent"), 2, "not on the hub, or private (then set HF_TOKEN)")
    refused(builder.build("org/absent", READER), 2, "not on the hub, or hidden from the token of HF_TOKEN")
    refused(
        builder.build("org/open", "hf_wrong"), 2, wrong, "(401: Invalid credentials in Authorization header)"
    )
    refused(builder.build("org/open", "hf_wröng"), 2, "HF_TOKEN is no token")
    refused(builder.build("org/gated"), 2, "is gated, and needs HF_TOKEN", terms)
    refused(
        builder.build("org/gated", READER),
        2,
        "is gated, the token of HF_TOKEN may not read it (403: Access to",
        terms,
    )
    built(builder.build("org/gated", GRANTED), folder)


ANSWERS: list[tuple[Fault, int, str]] = [
    (Fault("hub/api/models", 429, {"Retry-After": "3600"}), 1, "asks to wait 3600 s: build again later"),
    (
        Fault("hub/api/models", 429, {"RateLimit": '"api";r=0;t=240'}),
        1,
        "asks to wait 240 s: build again later",
    ),
    (Fault("/tree/", 429, {"Retry-After": "3600"}), 1, "asks to wait 3600 s: build again later"),
    (Fault("/config.json", 429, {"Retry-After": "3600"}, times=None), 1, "asks to wait 3600 s"),
    (Fault("^cdn/", 429, {"Retry-After": "3600"}), 1, "asks to wait 3600 s: build again later"),
    (Fault("hub/api/models", 503, body=b"be\nback"), 1, "answers 503: be back: try again"),
    (Fault("/tree/", 503, {"Retry-After": "3600"}, times=None), 1, "asks to wait 3600 s"),
    (Fault("^cdn/", 502), 1, "answers 502: try again, or run `hf download"),
    (Fault("^cdn/", 403), 1, "answers 403: try again, or run `hf download"),
    (
        Fault("hub/api/models", 403, {"X-Error-Message": "Forbidden"}),
        2,
        "the hub refuses (403: Forbidden): set",
    ),
    (
        Fault("/tokenizer.json", 404, {"X-Error-Code": "EntryNotFound"}),
        2,
        "lists tokenizer.json and does not have it",
    ),
    (
        Fault("hub/api/models", 200, body=b"<html>Log in</html>"),
        2,
        "does not answer as a hub does: check HF_EN",
    ),
    (
        Fault("/config.json", 200, body=b"<html>Log in</html>"),
        2,
        "does not answer as a hub does: check HF_EN",
    ),
]


@pytest.mark.parametrize(("fault", "code", "message"), ANSWERS)
def test_a_faulty_answer_of_the_hub_is_an_error_of_one_line(
    fault: Fault, code: int, message: str, hub: Hub, files: dict[str, bytes], builder: Builder
) -> None:
    name = f"org/faulty-{ANSWERS.index((fault, code, message))}"
    hub.add(name, files)
    hub.faults.append(replace(fault))
    refused(builder.build(name), code, message)


def test_a_hub_that_asks_to_wait_a_little_is_waited_for(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    hub.add("org/busy", files)
    soon = {"Retry-After": "0"}
    hub.faults += [Fault("org/busy$", 429, {"Retry-After": "1"}), Fault("/tree/", 429, soon)]
    hub.faults += [Fault("/config.json", 503), Fault("^cdn/", 429, soon)]
    built(builder.build("org/busy"), folder)
    assert hub.faults == []


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_waits_that_a_hub_asks_for_never_exceed_a_minute_in_all(waits: list[int]) -> None:
    patience, now, obeyed = Patience(), 1000, 0
    for asked in waits:
        if not patience.lasts("a", now, asked):
            break
        now, obeyed = now + asked, obeyed + asked
    assert obeyed <= PATIENCE_S
    assert obeyed == sum(waits) or obeyed + asked > PATIENCE_S
    patience.answered("a")
    assert patience.lasts("a", now, PATIENCE_S)


def test_a_name_that_no_repository_can_have(builder: Builder) -> None:
    refused(builder.build("org/two--dashes"), 2, "no name that a repository can have: Cannot have -- or ..")


@pytest.mark.skipif(find_spec("hf_xet") is None, reason="needs hf_xet")
def test_xet_that_fails_says_how_to_do_without(hub: Hub, files: dict[str, bytes], builder: Builder) -> None:
    hub.add("org/chunks", files)
    store = {"X-Xet-Cas-Url": hub.cdn, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": "9999999999"}
    hub.xet = True
    try:
        refused(builder.build("org/chunks"), 1, "Xet fails (404: ", "set HF_HUB_DISABLE_XET=1")
        hub.faults.append(Fault("/xet-read-token/", 200, store, times=None))
        refused(builder.build("org/chunks"), 1, "Xet fails (", "set HF_HUB_DISABLE_XET=1")
    finally:
        hub.xet = False


def test_offline_builds_from_the_cache_without_a_request(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder, offline: Builder
) -> None:
    commit = hub.add("org/cached", files)
    online = built(builder.build("org/cached@main"), folder)
    hub.asked.clear()
    for source in ("org/cached", "org/cached@main", f"org/cached@{commit}"):
        assert built(offline.build(source), folder) == online
    assert hub.asked == []
    refused(offline.build("org/cached@v2"), 2, "HF_HUB_OFFLINE is set, and the cache", "holds nothing of it")
    refused(offline.build(f"org/cached@{'0' * 40}"), 2, "HF_HUB_OFFLINE is set", "lacks config.json of it")


def test_offline_with_an_empty_cache_says_that_offline_is_set(offline: Builder) -> None:
    words = "HF_HUB_OFFLINE is set, and the cache", "holds nothing of it: unset it", "hf download org/never"
    refused(offline.build("org/never"), 2, *words)


@pytest.mark.parametrize("lost", ["config.json", "generation_config.json", "model.safetensors", "trees"])
def test_offline_a_part_of_a_repository_is_no_model(
    lost: str, hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder, offline: Builder
) -> None:
    """Without generation_config.json another model would come out; without the list nobody knows."""
    name = f"part-{Path(lost).stem}"
    commit = hub.add(f"org/{name}", files)
    built(builder.build(f"org/{name}"), folder)
    cached = folder / f"home/hub/models--org--{name}"
    if lost == "trees":
        shutil.rmtree(cached / "trees")
        said = f"does not say whether it has all of it: unset it, or give a folder as --source: {cached}"
    else:
        (cached / "snapshots" / commit / lost).unlink()
        said = f"lacks {lost} of it"
    refused(offline.build(f"org/{name}"), 2, "HF_HUB_OFFLINE is set", said)
    built(builder.build(f"org/{name}"), folder)  # the rest is fetched where the hub can be reached


def test_a_hub_that_stops_to_list_in_the_middle_leaves_no_part_for_a_model(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder
) -> None:
    """Then huggingface_hub gives the folder as it is. The list, which cannot be kept, is asked for again."""
    hub.add("org/halved", files)
    (folder / "home/hub/models--org--halved").mkdir(parents=True)
    (folder / "home/hub/models--org--halved/trees").touch()
    hub.faults.append(Fault("/tree/", 403, after=4))
    refused(builder.build("org/halved"), 1, "did not give README.md, generation_config.json, ", "build again")


def test_an_endpoint_that_does_not_listen(
    hub: Hub, files: dict[str, bytes], folder: Path, builder: Builder, start: Started
) -> None:
    """What the cache has is built, with a warning that it may be old."""
    hub.add("org/known", files)
    known = built(builder.build("org/known"), folder)
    deaf = start(DEAD)
    refused(
        deaf.build("org/unknown@v1"),
        1,
        "org/unknown@v1: the hub cannot be reached at 127.0.0.1:9 (ConnectError: ",
        "run `hf download org/unknown --revision v1 --local-dir unknown`",
        "then `python -m build --name mini --source ./unknown`",
    )
    said = deaf.build("org/known")
    assert built(replace(said, err=""), folder) == known
    assert said.err.startswith("Could not reach the Hub (")
    assert said.err.endswith("Using cached commit hash for 'org/known'.\n")


def test_a_proxy_that_does_not_listen(start: Started) -> None:
    through = start("http://hub.invalid", HTTP_PROXY="http://user:secret@127.0.0.1:9")
    said = through.build("org/model")
    refused(said, 1, "cannot be reached at hub.invalid through HTTP_PROXY (ConnectError: ")
    assert "secret" not in said.err


def test_a_certificate_of_an_authority_that_is_not_known(start: Started, tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key -out crt"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with serving(context) as secure:
        said = start(secure.address).build("org/model")
    refused(said, 1, "CERTIFICATE_VERIFY_FAILED", "set SSL_CERT_FILE to the authority's certificates")


def test_a_hub_that_does_not_answer_and_a_cache_that_cannot_be_written_are_named(
    hub: Hub, files: dict[str, bytes], start: Started, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    hurried = start(
        hub.address,
        HF_HUB_DOWNLOAD_TIMEOUT="2",
        HF_HUB_ETAG_TIMEOUT="2",
        HF_HUB_CACHE=str(tmp_path / "file" / "x"),
    )
    hub.faults.append(Fault("hub/api/models/org/mute", mute=True))
    refused(hurried.build("org/mute"), 1, "the hub cannot be reached", "(ReadTimeout: timed out)")
    hub.add("org/heard", files)
    refused(
        hurried.build("org/heard"), 1, "cannot be written (Not a directory): free some space there, or set"
    )


def test_a_terminal_shows_one_bar_of_the_download(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    """The command's own: huggingface_hub's would be drawn over it."""
    hub.add("org/shown", files)
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "build", *arguments("org/shown", tmp_path)]
    env = environment(hub.address, tmp_path, TERM="xterm", COLUMNS="120")
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=terminal) as running:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(main, 1 << 16):
                shown += piece
        except OSError:  # Linux's end of a terminal
            pass
    os.close(main)
    assert running.returncode == 0
    assert re.search(rb"download [^\r\n]*100%", shown)
    assert b"Fetching" not in shown
    assert b"Downloading" not in shown
    assert b"Reconstruct" not in shown
