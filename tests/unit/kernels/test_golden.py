"""Every level of the kernels gives the same bits on every machine; golden.py has their hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.runners.kernel_runner import KernelRunner, KernelWeights
from engine.runners.kernels import FOLDER, LEVELS, KernelsMissing, load_library
from engine.runners.runner import Floats
from tests.unit.kernels.golden import GOLDEN, SLOTS, Golden, hash_of

pytestmark = pytest.mark.exact
LIBRARIES = [name for names in LEVELS.values() for name in names]


@pytest.fixture(scope="module", params=GOLDEN)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Golden, Path]:
    found = Golden(request.param)
    return found, found.write(tmp_path_factory.mktemp("golden"))


def logits_of(golden: Golden, folder: Path, level: str, threads: int) -> list[Floats]:
    library = load_library(FOLDER, level)
    runner = KernelRunner(library, KernelWeights(folder), SLOTS, golden.sizes.capacity, threads)
    return [runner._run(call.ids, call.slots, call.positions, call.rows).copy() for call in golden.calls()]


@pytest.mark.parametrize("level", LIBRARIES)
def test_a_level_gives_the_bits_that_are_written_down(golden: tuple[Golden, Path], level: str) -> None:
    try:
        load_library(FOLDER, level)
    except KernelsMissing as why:
        if "the processor has no" not in str(why):
            raise
        pytest.skip(f"{level} is compiled but not run: {why}")
    for threads in (1, 3):
        found = np.concatenate(logits_of(*golden, level, threads))
        assert hash_of(found) == golden[0].hash, f"{level}, {threads} threads"


@pytest.mark.parametrize("name", ["a NaN", "an infinity", "keys beyond half floats"])
def test_a_number_that_is_not_finite_spoils_what_follows_it_in_its_sequence_alone(
    name: str, tmp_path: Path
) -> None:
    golden = Golden(name)
    found = logits_of(golden, golden.write(tmp_path), "plain", 2)
    spoilt: set[int] = set()
    for call, logits in zip(golden.calls(), found, strict=True):
        for row, scores in zip(call.rows, logits, strict=True):
            slot, past = call.slots[row], zip(call.slots[: row + 1], call.ids, strict=False)
            planted = golden.sizes.planted is not None and (slot, golden.sizes.vocab - 1) in past
            if planted or (golden.sizes.planted is None and np.isnan(scores).any()):
                spoilt.add(slot)
            assert np.isnan(scores).all() == np.isnan(scores).any() == (slot in spoilt)
    assert 1 < len(spoilt) < SLOTS
