"""Which task, prefix and settings a recipe and a checkpoint come to."""

from __future__ import annotations

from typing import Any

import pytest

from build.checkpoint import Checkpoint, Origin, TokenizerFiles
from build.errors import BadInput
from build.generation import generation
from build.recipe import Recipe, Task
from build.tasks import settled

T5_TASKS = {
    "summarization": {"prefix": "summarize: ", "num_beams": 4, "max_length": 200},
    "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 5},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "num_beams": 6},
}


def checkpoint(
    family: str = "t5", template: str | None = None, generation: dict[str, Any] | None = None, **config: Any
) -> Checkpoint:
    return Checkpoint(
        config={"model_type": family, "is_encoder_decoder": True, **config},
        weights={},
        tokenizer=TokenizerFiles(b"", template, {}),
        generation=generation or {},
        origin=Origin("folder", "x", None, None, {}),
    )


def recipe(task: Task | None = None, prefix: str = "") -> Recipe:
    return Recipe(name="x", source="x", task=task, prefix=prefix)


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("marian", Task.TRANSLATE),
        ("mbart", Task.TRANSLATE),
        ("bart", Task.SUMMARIZE),
        ("pegasus", Task.SUMMARIZE),
        ("t5", Task.SUMMARIZE),
    ],
)
def test_a_task_that_nobody_names_is_what_the_family_is_for(family: str, task: Task) -> None:
    assert settled(recipe(), checkpoint(family))[0].task is task


def test_a_decoder_chats_where_it_has_a_template() -> None:
    alone: dict[str, Any] = {"is_encoder_decoder": False}
    assert settled(recipe(), checkpoint("llama", "{{ x }}", **alone))[0].task is Task.CHAT
    assert settled(recipe(), checkpoint("llama", **alone))[0].task is Task.COMPLETE
    with pytest.raises(BadInput, match="has no chat template"):
        settled(recipe(Task.CHAT), checkpoint("llama", **alone))


def test_the_task_brings_its_prefix_and_settings() -> None:
    chosen, filled = settled(recipe(Task.SUMMARIZE), checkpoint(task_specific_params=T5_TASKS))
    assert chosen.prefix == "summarize: "
    assert generation(filled)["num_beams"] == 4
    assert generation(filled)["max_tokens"] == 199


def test_the_prefix_chooses_among_translations() -> None:
    prefix = "translate English to French: "
    chosen, filled = settled(recipe(Task.TRANSLATE, prefix), checkpoint(task_specific_params=T5_TASKS))
    assert chosen.prefix == prefix
    assert generation(filled)["num_beams"] == 6


def test_several_translations_need_a_prefix() -> None:
    with pytest.raises(BadInput, match=r"prefix: missing.*'translate English to German: ', 'translate Eng"):
        settled(recipe(Task.TRANSLATE), checkpoint(task_specific_params=T5_TASKS))


def test_a_prefix_of_ones_own_takes_no_settings() -> None:
    chosen, filled = settled(recipe(Task.TRANSLATE, "pig latin: "), checkpoint(task_specific_params=T5_TASKS))
    assert chosen.prefix == "pig latin: "
    assert generation(filled)["num_beams"] == 1


def test_generation_config_goes_before_the_settings_of_the_task() -> None:
    opened = checkpoint(task_specific_params=T5_TASKS, generation={"num_beams": 2})
    _, filled = settled(recipe(Task.SUMMARIZE), opened)
    assert generation(filled)["num_beams"] == 2
    assert generation(filled)["max_tokens"] == 199


def test_to_complete_takes_neither_prefix_nor_settings() -> None:
    chosen, filled = settled(recipe(Task.COMPLETE), checkpoint(task_specific_params=T5_TASKS))
    assert chosen.prefix == ""
    assert generation(filled)["num_beams"] == 1
