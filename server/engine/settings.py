"""Settings of the engine step, from the parameters of its config.pbtxt, fitted to the machine.

Every number is checked when the model loads: a wrong one is a SettingsError that names it, its value and its
limit, and the model does not become ready.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from engine.container import usable_cores
from engine.device import DeviceChoice
from engine.errors import SettingsError, shown
from engine.manifest import ModelShape

# The launcher's name of the threads of an engine whose own setting is 0.
THREADS: Final = "HALIMEDE_THREADS"
_RANGES: Final = {
    "slots": (1, 1024),
    "max_context": (2, 2**20),
    "max_source": (0, 2**20),
    "threads": (0, 1024),
    "max_queue": (1, 2**20),
    "kv_budget_bytes": (0, 2**50),
    "prefill_chunk": (1, 2**20),
    "prefill_stall_percent": (0, 100_000),
    "heartbeat_ms": (10, 60_000),
    "stream_interval": (0, 1024),
    "speculative_tokens": (0, 15),
}
_MAX_DIGITS: Final = 20
# What the weights' working memory, the tokenizer and the rest of the server need in addition to the KV cache.
_MEMORY_SHARE: Final = 0.8
_USUAL_SOURCE: Final = 1024


class KernelChoice(StrEnum):
    """Which level an engine on the CPU runs on: on is the best one, auto is off where there is none."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"
    AVX512 = "avx512"
    AVXVNNI = "avxvnni"
    AVX2 = "avx2"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Settings:
    """`threads` 0 uses every core; `kv_budget_bytes` 0 allows 80 % of the memory that is free at load;
    `max_source` 0 is what the model's encoder takes, at most 1024 tokens; `prefill_stall_percent` is the time
    of a prefill chunk while streams run, in decode steps; 0 for chunks that are always `prefill_chunk` long;
    `stream_interval` is the number of steps from one response to the next, 0 to choose it by the number of
    running streams (engine.responses); `speculative_tokens` is the most that prompt lookup proposes for a
    step, 0 for none.
    """

    slots: int = 16
    max_context: int = 2048
    max_source: int = 0
    threads: int = 0
    max_queue: int = 64
    kv_budget_bytes: int = 0
    prefill_chunk: int = 128
    prefill_stall_percent: int = 250
    heartbeat_ms: int = 500
    stream_interval: int = 0
    speculative_tokens: int = 0
    device: DeviceChoice = DeviceChoice.AUTO
    kernels: KernelChoice = KernelChoice.AUTO

    @property
    def thread_count(self) -> int:
        return self.threads or usable_cores()

    def source_capacity(self, shape: ModelShape) -> int:
        """Source tokens that a slot holds; 0 for a model without an encoder."""
        return self.max_source or min(_USUAL_SOURCE, shape.max_source_positions)


_CHOICES: Final[Mapping[str, type[StrEnum]]] = {"device": DeviceChoice, "kernels": KernelChoice}


def read_settings(parameters: Mapping[str, str], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in a model's parameters; the server's environment supplies what they leave open.

    Raises SettingsError for a value that is no whole number or out of its range, or no choice.
    """
    numbers: dict[str, Any] = {
        name: _number(name, parameters[name]) for name in _RANGES if name in parameters
    }
    if not numbers.get("threads") and (threads := (environ or {}).get(THREADS)):
        numbers["threads"] = _number("threads", threads)
    choices = {name: _choice(name, parameters[name]) for name in _CHOICES if name in parameters}
    return Settings(**numbers, **choices)


def _choice(name: str, text: str) -> Any:
    kind = _CHOICES[name]
    if text not in list(kind):
        raise SettingsError(name, f"{shown(text)}, must be one of {', '.join(kind)}")
    return kind(text)


def _number(name: str, text: str) -> int:
    low, high = _RANGES[name]
    if not text.strip().isdecimal() or len(text) > _MAX_DIGITS or not low <= int(text) <= high:
        raise SettingsError(name, f"{shown(text)}, must be a whole number in [{low}, {high}]")
    return int(text)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine takes in addition to its weights: keys and values, and the scratch memory of each
    thread.

    Positions are allocated in blocks of `block`; `scratch` gives the bytes of a thread for so many positions.
    """

    shape: ModelShape
    block: int = 1
    scratch: Callable[[int], int] = lambda _: 0

    def capacity(self, positions: int) -> int:
        """Positions that are allocated."""
        return -(-positions // self.block) * self.block

    def cache(self, settings: Settings) -> int:
        """Bytes of the keys and values of all slots."""
        source = settings.source_capacity(self.shape)
        return self.shape.kv_bytes(settings.slots, self.capacity(settings.max_context), source)

    def needed(self, settings: Settings) -> int:
        own = self.scratch(self.capacity(settings.max_context))
        return self.cache(settings) + settings.thread_count * own

    def max_context(self, settings: Settings, budget_bytes: int) -> int:
        """The largest max_context with which the other settings fit so much memory, at most the model's
        positions; 0 if none fits.
        """

        def needed(blocks: int) -> int:
            return self.needed(replace(settings, max_context=blocks * self.block))

        blocks = range(self.capacity(self.shape.max_positions) // self.block + 1)
        fitting = bisect_right(blocks, budget_bytes, key=needed) - 1
        return min(max(fitting, 0) * self.block, self.shape.max_positions)


def check_fit(settings: Settings, footprint: Footprint, free_bytes: int) -> int:
    """The budget of cache and threads, in bytes. Raises SettingsError when they exceed it, or the context or
    the source the model's.
    """
    shape = footprint.shape
    if settings.max_context > shape.max_positions:
        problem = f"{settings.max_context}, must be at most {shape.max_positions} (the model's positions)"
        raise SettingsError("max_context", problem)
    if settings.max_source > shape.max_source_positions:
        problem = (
            f"{settings.max_source}, must be at most {shape.max_source_positions} (the encoder's positions)"
        )
        raise SettingsError("max_source", problem)
    budget = min(settings.kv_budget_bytes or int(_MEMORY_SHARE * free_bytes), free_bytes)
    if footprint.needed(settings) > budget:
        raise SettingsError("kv_budget_bytes", _too_much(settings, footprint, budget))
    return budget


def _too_much(settings: Settings, footprint: Footprint, budget: int) -> str:
    context, source = settings.max_context, settings.source_capacity(footprint.shape)
    slots, threads, cache = settings.slots, settings.thread_count, footprint.cache(settings)
    own = footprint.scratch(footprint.capacity(context))
    fitting = [f"{max(budget - threads * own, 0) // (cache // slots)} slots fit"]
    needs = f"{slots} slots of {context + source} positions need {cache:,} bytes"
    if own:
        needs += f" and {threads} threads {threads * own:,}"
        fitting.append(f"{max(budget - cache, 0) // own} threads")
    fitting.append(f"a max_context of {footprint.max_context(settings, budget)}")
    return f"{needs}, the limit is {budget:,}; {', or '.join(fitting)}"
