"""The task that a model is served for: the recipe's, or the one that the checkpoint suggests.

T5 and BART have settings for their tasks (`task_specific_params` of config.json): a prefix and how to
generate. Those of the recipe's task apply where the recipe and generation_config.json say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from build.checkpoint import Checkpoint
from build.errors import BadInput
from build.recipe import Recipe, Task

_TRANSLATORS = ("marian", "mbart")
_ENTRIES = {Task.SUMMARIZE: "summarization", Task.TRANSLATE: "translation"}


def settled(recipe: Recipe, checkpoint: Checkpoint) -> tuple[Recipe, Checkpoint]:
    """The recipe with a task and its prefix, the checkpoint with the task's settings.

    BadInput where the recipe's task does not fit the checkpoint.
    """
    encodes = bool(checkpoint.config.get("is_encoder_decoder"))
    template, task = checkpoint.tokenizer.chat_template, recipe.task
    if task is None and encodes:
        translates = checkpoint.config.get("model_type") in _TRANSLATORS
        task = Task.TRANSLATE if translates else Task.SUMMARIZE
    elif task is None:
        task = Task.COMPLETE if template is None else Task.CHAT
    if task is Task.CHAT and encodes:
        raise BadInput('task: "chat", an encoder-decoder takes summarize, translate or complete')
    if task is Task.CHAT and template is None:
        raise BadInput('the checkpoint has no chat template: set task = "complete", or add one')
    entry = dict(_entry(task, recipe.prefix, checkpoint))
    prefix = recipe.prefix or str(entry.pop("prefix", None) or "")
    filled = replace(checkpoint, generation=entry | dict(checkpoint.generation))
    return replace(recipe, task=task, prefix=prefix), filled


def _entry(task: Task, prefix: str, checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The checkpoint's settings for the task: those with the prefix, where the recipe names one."""
    tables = checkpoint.config.get("task_specific_params") or {}
    kind = _ENTRIES.get(task)
    fitting = {key: table for key, table in tables.items() if kind and key.startswith(kind)}
    if prefix:
        return next((table for table in fitting.values() if table.get("prefix") == prefix), {})
    if kind in fitting or len(fitting) == 1:
        return dict(fitting.get(str(kind)) or next(iter(fitting.values())))
    prefixes = [repr(table["prefix"]) for table in fitting.values() if table.get("prefix")]
    if prefixes:
        raise BadInput(f"prefix: missing, the checkpoint has several: set one of {', '.join(prefixes)}")
    return {}
