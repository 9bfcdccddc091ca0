"""Chats rendered by transformers and by us, with special tokens of many models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer

from engine.prompts.chat import ChatTemplate, Message, PromptEncoder
from tests.models.tokenizers_of_kinds import byte_level

BOS, EOS = "<s>", "</s>"
CONTROL = (
    *(BOS, EOS, "<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|im|>", "<|im|><|im|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]"),
    *("<｜User｜>", "<｜Assistant｜>", "<｜end｜>", "<tool>", "</tool>"),
)


@cache
def tokenizer() -> Tokenizer:
    made = byte_level()
    made.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in CONTROL])
    return made


@cache
def plain_tokenizer() -> Tokenizer:
    """Special tokens are plain text to it."""
    made = Tokenizer.from_str(tokenizer().to_str())
    made.encode_special_tokens = True
    return made


@cache
def peer() -> Any:
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    made = Tokenizer.from_str(tokenizer().to_str())
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=BOS, eos_token=EOS)


def rendered(source: str, messages: Iterable[Message], **names: str) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    made: str = peer().apply_chat_template(
        turns, chat_template=source, add_generation_prompt=True, tokenize=False, **names
    )
    return made


def template_of(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": BOS, "eos_token": EOS})


@cache
def encoder() -> PromptEncoder:
    return PromptEncoder(tokenizer(), None)


def encoded(template: ChatTemplate, messages: Sequence[Message]) -> list[int]:
    encoder()._template = template
    return encoder().encode_chat(tuple(messages))


def user(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("user", content) for content in contents)


def control(name: str) -> int:
    number = tokenizer().token_to_id(name)
    assert number is not None
    return number


def plain_ids(of: str) -> list[int]:
    return list(plain_tokenizer().encode(of, add_special_tokens=False).ids)
