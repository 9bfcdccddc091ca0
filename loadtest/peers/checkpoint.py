"""The reference weights as a Hugging Face folder: what every peer converts. A program of the benchmark.

  python -m loadtest.peers.checkpoint TOKENIZER FOLDER    TOKENIZER: the engine's folder, for tokenizer.json

transformers dequantises the package's GGUF and puts the rows of q and k back into its own order. Tensors are
fp32, so that no peer starts from rounded ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerFast

from loadtest.bench.reference import gguf_file, load_gguf

_EOS, _BOS = "<|im_end|>", "<|im_start|>"
# Peers bring transformers 4, which knows these names and not those of 5.
_FOR_OLDER: dict[str, dict[str, Any]] = {
    "config.json": {"rope_theta": 100000.0, "torch_dtype": "float32"},
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
}


def write(engine: Path, folder: Path) -> None:
    """Raises what transformers raises when the package or the tokenizer cannot be read."""
    model = load_gguf(gguf_file())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(engine / "tokenizer.json"), bos_token=_BOS, eos_token=_EOS, pad_token=_EOS
    )
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.config.update(ids | {"pad_token_id": tokenizer.pad_token_id})
    model.generation_config = GenerationConfig(**ids, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, fields in _FOR_OLDER.items():
        _merge(folder / name, fields)


def _merge(path: Path, fields: dict[str, Any]) -> None:
    content = json.loads(path.read_text("utf-8")) | fields
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
