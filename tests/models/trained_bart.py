"""A small BART that has really learned something: the dates of `tests.models.dates`, in less than a minute.

No pretrained BART can be had offline, and a random one answers nothing that could be called right.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from tests.models.dates import Pair, pairs

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_BOS, _PAD, _EOS = 0, 1, 2
_STEPS, _BATCH, _PEAK = 700, 64, 2e-3
_IGNORED = -100


def train(folder: Path) -> Path:
    """Writes the checkpoint as `save_pretrained` does; the same bytes each time on the same machine."""
    torch.manual_seed(0)
    examples = pairs(_STEPS * _BATCH, seed=0)
    tokenizer = _tokenizer(examples[:5000])
    model = _model(tokenizer.get_vocab_size())
    optimiser = torch.optim.AdamW(model.parameters(), lr=_PEAK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _PEAK, total_steps=_STEPS)
    model.train()
    for chunk in (examples[i : i + _BATCH] for i in range(0, len(examples), _BATCH)):
        sources = _padded([tokenizer.encode(pair.written).ids for pair in chunk], _PAD)
        labels = _padded([tokenizer.encode(pair.iso).ids for pair in chunk], _IGNORED)
        loss = model(input_ids=sources, attention_mask=sources != _PAD, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    _save(folder, model.eval(), tokenizer)
    return folder


def _tokenizer(examples: list[Pair]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((pair.written for pair in examples), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", _EOS), ("<s>", _BOS), add_prefix_space=False
    )
    return tokenizer


def _model(vocab: int) -> BartForConditionalGeneration:
    config = BartConfig(
        vocab_size=vocab,
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        max_position_embeddings=128,
        dropout=0.0,
        forced_eos_token_id=_EOS,
        num_beams=1,
    )
    return BartForConditionalGeneration(config)


def _padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def _save(folder: Path, model: BartForConditionalGeneration, tokenizer: Tokenizer) -> None:
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)
