"""GGUF files against transformers: its own reader where that is right, else its model of the same weights.

transformers reads no scaling of positions from a GGUF file, and has defaults of its own for the size of a
head and the windows of Gemma 3: those files are compared with a folder whose config.json says the same.
"""

from __future__ import annotations

import io
import pydoc_data.topics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from build.architecture import describe
from build.quantise import Floats
from build.reference import decoder as reference
from build.sources.gguf_tokenizer import tokenizer_files
from build.sources.gguf_vocabulary import read_vocabulary
from tests.models import tiny

torch = pytest.importorskip("torch")
sentencepiece = pytest.importorskip("sentencepiece")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

PROMPT = np.random.default_rng(1).integers(3, len(tiny.VOCAB), 29)
GEMMA3: dict[str, Any] = {"num_hidden_layers": 4, "layer_types": None, "query_pre_attn_scalar": 32}
FULL, SLIDING = "full_attention", "sliding_attention"


def ours(path: Path) -> Floats:
    checkpoint = tiny.opened_gguf(path)
    architecture = describe(checkpoint.config)
    hidden = reference.final_hidden(checkpoint, architecture, PROMPT[None], lambda: None)[0]
    logits: Floats = hidden @ reference.head_weight(checkpoint, architecture).T
    return logits


def theirs(folder: Path, **options: Any) -> NDArray[np.float32]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor(PROMPT[None])).logits[0].numpy()
    return logits


@pytest.mark.parametrize(
    ("family", "changes"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("qwen2", {}), ("qwen3", {"head_dim": 128})],
    ids=lambda case: " ".join(case) if isinstance(case, dict) else case,
)
def test_a_file_has_the_logits_of_their_reader(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "model.gguf", family, **changes)
    np.testing.assert_allclose(ours(path), theirs(tmp_path, gguf_file=path.name), atol=2e-4)


@pytest.mark.parametrize(
    ("family", "metadata", "changes"),
    [
        ("llama", {".rope.scaling.factor": 4.0}, {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
        ("qwen2", {".rope.scale_linear": 2.0}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("qwen3", {".rope.scaling.type": "none", ".rope.scaling.factor": 4.0}, {}),
        ("llama", {".rope.freq_base": 500.0}, {"rope_theta": 500.0}),
        ("qwen2", {".attention.sliding_window": 5}, {}),
        ("gemma3_text", {".attention.sliding_window": None}, {"layer_types": [FULL] * 4}),
        ("gemma3_text", {".attention.sliding_window_pattern": 2}, {"layer_types": [SLIDING, FULL] * 2}),
        (
            "gemma3_text",
            {".rope.scaling.factor": 8.0, ".rope.freq_base_swa": 100.0},
            {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 100.0},
        ),
    ],
    ids=str,
)
def test_keys_are_what_config_json_says_in_its_words(
    family: str, metadata: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    common = GEMMA3 if family == "gemma3_text" else {}
    path = tiny.write_gguf(tmp_path / "model.gguf", family, metadata=metadata, **common)
    folder = tiny.write_folder(tmp_path / "folder", family, **(common | changes))
    np.testing.assert_allclose(ours(path), theirs(folder), atol=2e-4)
    if changes:
        plain = tiny.write_gguf(tmp_path / "plain.gguf", family, **common)
        assert np.abs(ours(path) - ours(plain)).max() > 0.1


PROSE = pydoc_data.topics.topics["specialnames"] + "\nZażółć gęślą jaźń, 你好 世界.\n"


@pytest.fixture(scope="module")
def trained() -> Any:
    """A BPE vocabulary of the library that GGUF files of this kind come from."""
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROSE.splitlines()),
        model_writer=content,
        vocab_size=800,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())


def test_pieces_are_merged_as_the_library_merges_them(trained: Any) -> None:
    count = trained.get_piece_size()
    kinds = {"is_unknown": 2, "is_control": 3, "is_byte": 6}
    types = [
        next((number for name, number in kinds.items() if getattr(trained, name)(index)), 1)
        for index in range(count)
    ]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [trained.id_to_piece(index) for index in range(count)],
        "tokenizer.ggml.scores": [trained.get_score(index) for index in range(count)],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_bos_token": False,
    }
    tokenizer = Tokenizer.from_str(tokenizer_files(metadata, read_vocabulary(metadata)).json.decode())
    for line in [*PROSE.splitlines(), "  two  spaces\tand 日本 🙂", "aaaaaaa ------- ...", "x"]:
        ids = tokenizer.encode(line).ids
        assert ids == trained.encode(line), line
        assert tokenizer.decode(ids) == line
