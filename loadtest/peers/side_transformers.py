"""transformers in fp32, on the folder that every peer converts: the reference. A program of the benchmark.

python -m loadtest.peers.side_transformers FOLDER THREADS

{"do": "generate", …}                     as loadtest.bench.reference
{"do": "score", "windows": [[ids…]…]}     losses of each window's tokens after the first
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from loadtest.bench.reference import generate, load_folder
from loadtest.peers.losses import token_losses
from loadtest.program import Answer, serve


def answer(model: Any, command: Answer) -> Answer:
    if command["do"] != "score":
        return generate(model, command)
    with torch.inference_mode():
        return {
            "losses": [
                token_losses(model(torch.tensor([ids])).logits[0].numpy(), ids) for ids in command["windows"]
            ]
        }


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    serve(lambda: partial(answer, load_folder(Path(sys.argv[1]))))
