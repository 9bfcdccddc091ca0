"""Runs the steps of a recipe: each once, kept under the hash of all that made it, and judged before the next.

A second run, or one after Ctrl-C or a kill, reads the steps that were done and goes on with the first that
was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from build.checkpoint import Checkpoint
from build.compress.plan import Budget, Step
from build.compress.step import Cost, Tools
from build.compress.store import Kept, Store, root
from build.errors import BadInput, BuildError

Json = dict[str, Any]
# Of a step: its checkpoint, its parent's, the root's. The result has the names of a budget and may have more.
_MEASURED = "against_root"
Measure = Callable[[Checkpoint, Checkpoint, Checkpoint], Json]
_CODE = ("compress", "reference", "quantise.py")
_TOOLS = ("numpy", "tokenizers")
_GIB = 1 << 30


@dataclass(frozen=True)
class Machine:
    """What this machine has: free bytes of memory, and multiplications and additions of fp32 a second."""

    free_memory: int
    operations: float


@dataclass(frozen=True)
class Chain:
    """`steps` over a source; `measure` judges each, `say` is told what begins and what was found."""

    steps: tuple[Step, ...]
    source: Checkpoint
    store: Store
    tools: Tools
    measure: Measure
    machine: Machine
    say: Callable[[str], None]

    def require(self) -> None:
        """BadInput for all that can be refused before the long work."""
        for number, step in enumerate(self.steps, 1):
            with_name = f"step {number}, {step.name}"
            try:
                step.does.require(self.source, step.options)
            except BadInput as error:
                raise type(error)(f"{with_name}: {error}") from error
            cost = step.does.cost(self.source, step.options)
            if cost.memory > self.machine.free_memory:
                raise BadInput(
                    f"{with_name}: takes {cost.memory / _GIB:.1f} GiB of memory, and"
                    f" {self.machine.free_memory / _GIB:.1f} GiB are free"
                )
        self._require_room()

    def run(self) -> tuple[Checkpoint, list[Json]]:
        """The last checkpoint, and a record of each step; BuildError where one exceeds its own budget."""
        parent, lineage = root(self.source), []
        for number, step in enumerate(self.steps, 1):
            key = self._key(self.steps[:number])
            made, record = self._done(number, step, key, parent)
            require_within(f"step {number}, {step.name}", record["against_parent"], step.budget)
            lineage.append(record)
            parent = made
        return parent.checkpoint, lineage

    def _done(self, number: int, step: Step, key: str, parent: Kept) -> tuple[Kept, Json]:
        """What was made before a break is not made again; it is only measured if that is missing."""
        made, record = self.store.find(key), self.store.record(key)
        name = f"step {number} of {len(self.steps)}, {step.name}"
        if made is not None and record is not None and _MEASURED in record:
            self.say(f"{name}: done before, {_figures(record)}")
            return made, record
        if made is None or record is None:
            made, record = self._made(name, step, key, parent)
            self.store.write_record(key, record)
        record |= self.measure(made.checkpoint, parent.checkpoint, self.source)
        self.store.write_record(key, record)
        self.say(f"{name}: {record['seconds']} s, {_figures(record)}")
        return made, record

    def _made(self, name: str, step: Step, key: str, parent: Kept) -> tuple[Kept, Json]:
        cost = step.does.cost(parent.checkpoint, step.options)
        self.say(f"{name}: about {_duration(cost, self.machine)}, {cost.memory / _GIB:.1f} GiB")
        began, notes = time.monotonic(), dict[str, Any]()
        tools = replace(self.tools, seed=step.seed, note=notes.update)
        step.does.require(parent.checkpoint, step.options)
        made = self.store.keep(key, step.does.run(parent.checkpoint, step.options, tools), parent)
        return made, {
            **step.described(),
            "key": key,
            "parent": parent.key,
            "tools": {tool: metadata.version(tool) for tool in _TOOLS},
            "seconds": round(time.monotonic() - began, 1),
            "notes": notes,
        }

    def _key(self, steps: Sequence[Step]) -> str:
        texts = hashlib.sha256("\0".join(self.tools.texts).encode()).hexdigest()
        content = {
            "source": dict(self.source.origin.files),
            "config": dict(self.source.config),
            "texts": texts,
            "steps": [step.described() for step in steps],
            "code": _code_hash(),
            "tools": {tool: metadata.version(tool) for tool in _TOOLS},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def _require_room(self) -> None:
        """A step writes at most every weight in fp32."""
        missing = [
            n for n in range(1, len(self.steps) + 1) if not self.store.holds(self._key(self.steps[:n]))
        ]
        numbers = sum(math.prod(weight.shape) for weight in self.source.weights.values())
        needed = 4 * numbers * len(missing)
        self.store.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.store.folder).free
        if needed > free:
            raise BadInput(
                f"{self.store.folder}: {len(missing)} steps take up to {needed / _GIB:.1f} GiB, and"
                f" {free / _GIB:.1f} GiB are free: remove older steps there, or free space"
            )


def require_within(what: str, found: Json, budget: Budget) -> None:
    """BuildError names each figure that exceeds its budget, with both."""
    over = [
        f"{name} {found[name]:.4g}, budget {limit:g}"
        for name, limit in asdict(budget).items()
        if limit is not None and not found[name] <= limit
    ]
    if over:
        raise BuildError(f"{what}: {'; '.join(over)}: nothing was published")


def _figures(record: Json) -> str:
    found = record["against_parent"]
    return ", ".join(f"{name} {found[name]:.4g}" for name in ("perplexity", "kl", "flips") if name in found)


def _duration(cost: Cost, machine: Machine) -> str:
    seconds = cost.operations / machine.operations
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@cache
def _code_hash() -> str:
    """Of the files whose change may change a result."""
    here = Path(__file__).resolve().parents[1]
    found = hashlib.sha256()
    for place in _CODE:
        path = here / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".txt"):
                found.update(file.read_bytes())
    return found.hexdigest()
