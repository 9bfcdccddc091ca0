from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import launch
from engine.edge.triton import REGION_PREFIX, instances_of, load_board_of

ARGS = {"model_name": "toy_engine", "model_version": "3"}


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [
        ([], 1),
        ([{"count": 1, "kind": "KIND_CPU", "gpus": []}], 1),
        ([{"count": 2, "kind": "KIND_CPU"}], 2),
        ([{"count": 1, "kind": "KIND_GPU", "gpus": [0, 1, 3]}], 3),
        (
            [{"count": 2, "kind": "KIND_GPU", "gpus": [0]}, {"count": 1, "kind": "KIND_GPU", "gpus": [1, 2]}],
            4,
        ),
    ],
)
def test_a_group_has_as_many_instances_on_each_of_its_gpus(groups: list[Any], wanted: int) -> None:
    assert instances_of({"instance_group": groups}) == wanted


def test_what_instances_share_goes_with_their_servers_regions() -> None:
    assert REGION_PREFIX == launch.REGION_PREFIX
    found = load_board_of(ARGS, {REGION_PREFIX: "halimede_7_0a0b0c0d_"})
    assert found == Path("/dev/shm/halimede_7_0a0b0c0d_toy_engine_3.load")


def test_without_the_launcher_it_goes_by_the_server() -> None:
    assert load_board_of(ARGS, {}) == Path(f"/dev/shm/halimede_{os.getppid()}_toy_engine_3.load")
