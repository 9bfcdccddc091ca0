"""What the README shows is run as it stands, against the real server; the two READMEs show the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import triton_to_np_dtype

from tests.contract import TYPES
from tests.live.serving import Server
from tests.live.wire import WAIT_SECONDS, ask
from tests.live.wire_grpc import GrpcWire
from tests.paths import ROOT

pytestmark = pytest.mark.e2e


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )


def at(server: Server, text: str) -> str:
    """The text with this server's addresses for those of the defaults."""
    ours = {
        "127.0.0.1:8000": server.address.http,
        "127.0.0.1:8001": server.address.grpc,
        "127.0.0.1:8002": server.at("metrics"),
    }
    text = re.sub("127.0.0.1:800[012]", lambda found: ours[found[0]], text)
    return re.sub(
        r"^\.venv/bin/halimede (\w+)",
        rf"{halimede()} \1 --url {server.address.grpc}",
        text,
        flags=re.MULTILINE,
    )


def halimede() -> Path:
    return Path(sys.executable).parent / "halimede"


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_shell_commands_run(int8: Server) -> None:
    shell, web = (at(int8, block) for block in blocks("bash"))
    said = run("bash", "-euo", "pipefail", "-c", shell)
    assert "Paris" in said
    said = run("bash", "-euo", "pipefail", "-c", web)
    assert said.count('"finish_reason":"') > 2
    assert '"error"' not in said
    assert "halimede_generation_tokens_total" in said


def test_the_python_example_runs(int8: Server) -> None:
    (example,) = blocks("python")
    said = run(sys.executable, "-c", at(int8, example))
    assert "Paris" in said
    assert "top_p" in said.splitlines()[-1]


@pytest.mark.filterwarnings("ignore:tritonclient.grpc doesn't support timeout")
def test_the_clients_of_the_page_get_the_last_response(int8: Server) -> None:
    """pytriton's own client loses it, or the page would have to change."""
    raw, subclass = blocks("python", "docs/design.md")
    page: dict[str, Any] = {"pieces": [], "ended": Queue()}
    exec(raw, page)
    exec(subclass, page)
    inputs: dict[str, Any] = {
        "text_input": "Once upon a time",
        "max_tokens": 5,
        "temperature": 0.0,
        "stream": True,
    }
    with GrpcWire(int8.address) as wire:
        whole = ask(wire, **inputs).text
    with InferenceServerClient(int8.address.grpc) as client:
        client.start_stream(page["on_response"])
        tensors = [
            InferInput(name, [1, 1], TYPES[name]).set_data_from_numpy(tensor(name, value))
            for name, value in inputs.items()
        ]
        client.async_stream_infer(int8.model, tensors)
        assert page["ended"].get(timeout=WAIT_SECONDS) is None
    assert "".join(page["pieces"]) == answered(page["WholeAnswers"], int8, inputs) == whole
    cut = answered(page["DecoupledModelClient"], int8, inputs)
    assert whole.startswith(cut)
    assert cut != whole


def answered(kind: Any, server: Server, inputs: Mapping[str, Any]) -> str:
    """What a client of pytriton gives, joined."""
    arrays = {name: tensor(name, value)[0] for name, value in inputs.items()}
    with kind(f"grpc://{server.address.grpc}", server.model) as client:
        return "".join(reply["text_output"].item().decode() for reply in client.infer_sample(**arrays))


def tensor(name: str, value: Any) -> Any:
    return np.array([[value.encode() if isinstance(value, str) else value]], triton_to_np_dtype(TYPES[name]))


def test_the_makefile_has_every_target_that_the_page_names() -> None:
    named = set(re.findall(r"^make ([\w-]+)", "".join(blocks("console")), re.MULTILINE))
    assert {"demo", "test", "serve", "chat", "engines"} <= named
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named <= set(targets)


def test_both_pages_show_the_same_commands() -> None:
    assert blocks("bash") == blocks("bash", "README.zh-CN.md")
    assert blocks("python") == blocks("python", "README.zh-CN.md")
