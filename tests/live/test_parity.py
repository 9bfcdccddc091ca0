"""SmolLM2 in fp32 through the whole ensemble, token for token what transformers.generate gives."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tokenizers import Tokenizer

from build.recipe import load_recipe
from build.sources.resolve import open_source
from tests.live.serving import Server
from tests.models.oracle import llama_oracle

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.e2e, pytest.mark.parity, pytest.mark.slow, pytest.mark.timeout(900)]

TOKENS, OTHERS = 64, 16
ENDS, PADDING = [0, 2, 4], 2
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "The three primary colours are",
    "Dear Sir or Madam,\n\nI am writing to",
    "Water boils at",
    "import numpy as np\n\n# the mean of each column\n",
    "In 1969, Neil Armstrong",
    "Ingredients:\n- 200 g flour\n- 2 eggs\n",
    "Q: What is a prime number?\nA:",
    "Neptune is the eighth planet. Its largest moon is",
    "SELECT name FROM users WHERE",
    "Il était une fois",
    "The quick brown fox",
    '{"name": "Ada", "age": 36, "city": "',
    "To be, or not to be,",
    "1, 2, 4, 8, 16,",
    "¿Dónde está la biblioteca? 🙂",
    "How to make tea: first,",
    "Machine learning is",
]


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """What transformers generates greedily, end-of-sequence token included."""
    checkpoint = open_source(load_recipe("smollm2").source)
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    model = llama_oracle(checkpoint)
    return generate(model, [tokenizer.encode(prompt).ids for prompt in PROMPTS])


def generate(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """As one batch, padded on the left, each answer up to a token that ends it."""
    width = max(map(len, prompts))
    padded = torch.tensor([[PADDING] * (width - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    with torch.no_grad():
        answers = model.generate(
            padded,
            attention_mask=mask,
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=ENDS,
            pad_token_id=PADDING,
        )
    return [until_end(answer.tolist()) for answer in answers[:, width:]]


def until_end(tokens: list[int]) -> list[int]:
    ends = (index for index, token in enumerate(tokens) if token in ENDS)
    return tokens[: next(ends, len(tokens)) + 1]


def ask(server: Server, **inputs: Any) -> dict[str, Any]:
    url = f"http://{server.address.http}/v2/models/smollm2/generate"
    request = urllib.request.Request(url, json.dumps(inputs).encode())
    with urllib.request.urlopen(request, timeout=600) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def tokens(server: Server, prompt: str) -> list[int]:
    answer = ask(server, text_input=prompt, max_tokens=TOKENS, num_logprobs=0)
    return [entry["id"] for entry in json.loads(answer["logprobs"])]


def other(server: Server, number: int) -> None:
    """Sampled, of another length each: rows come and go while the greedy ones run."""
    ask(
        server,
        text_input=f"Story number {number}: " + "the road went on and on " * number,
        max_tokens=40 + 10 * number,
        temperature=1.0,
        seed=number,
        ignore_eos=True,
    )


def test_alone(fp32: Server, expected: list[list[int]]) -> None:
    assert [tokens(fp32, prompt) for prompt in PROMPTS] == expected


def test_among_others(fp32: Server, expected: list[list[int]]) -> None:
    fresh: Callable[[str], list[int]] = lambda prompt: tokens(fp32, prompt)  # noqa: E731
    with ThreadPoolExecutor(OTHERS + len(PROMPTS)) as pool:
        noise = [pool.submit(other, fp32, number) for number in range(OTHERS)]
        answers = list(pool.map(fresh, PROMPTS))
        for one in noise:
            one.result()
    assert answers == expected
