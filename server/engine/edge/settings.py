"""Settings of the engine step, from the parameters of its config.pbtxt, fitted to the machine.

Every number is checked when the model loads: a wrong one is a SettingsError that names it, its value and its
limit, and the model does not become ready.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from engine.core.contract import SETTINGS, EngineSettings, TokenizerSettings
from engine.core.errors import SettingsError, shown
from engine.core.limits import Limit
from engine.edge.artifact import ModelShape
from engine.edge.container import usable_cores

# The launcher's name of the threads of an engine whose own setting is 0.
THREADS: Final = "HALIMEDE_THREADS"
_MAX_DIGITS: Final = 20
# What the weights' working memory, the tokenizer and the rest of the server need in addition to the KV cache.
_MEMORY_SHARE: Final = 0.8
_USUAL_SOURCE: Final = 1024


@dataclass(frozen=True, slots=True)
class Settings(EngineSettings):
    """The settings of the contract; 0 stands for what the machine and the model have."""

    @property
    def thread_count(self) -> int:
        return self.threads or usable_cores()

    def source_capacity(self, shape: ModelShape) -> int:
        """Source tokens that a slot holds; 0 for a model without an encoder."""
        return self.max_source or min(_USUAL_SOURCE, shape.max_source_positions)


def read_settings(parameters: Mapping[str, str], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in a model's parameters; the server's environment supplies what they leave open.

    Raises SettingsError for a value that is no whole number or out of its range, or no choice.
    """
    given = _read(Settings, parameters)
    if not given.get("threads") and (threads := (environ or {}).get(THREADS)):
        given["threads"] = _value("threads", threads)
    return Settings(**given)


def read_tokenizer_settings(parameters: Mapping[str, str]) -> TokenizerSettings:
    """As `read_settings`, of the tokenizer step."""
    return TokenizerSettings(**_read(TokenizerSettings, parameters))


def _read(of: type[Settings | TokenizerSettings], parameters: Mapping[str, str]) -> dict[str, Any]:
    names = (one.name for one in fields(of))
    return {name: _value(name, parameters[name]) for name in names if name in parameters}


def _value(name: str, text: str) -> Any:
    limit = SETTINGS[name]
    if not isinstance(limit, Limit):
        if text not in list(limit):
            raise SettingsError(name, f"{shown(text)}, must be one of {', '.join(limit)}")
        return limit(text)
    if not text.strip().isdecimal() or len(text) > _MAX_DIGITS or not limit.low <= int(text) <= limit.high:
        raise SettingsError(name, f"{shown(text)}, must be a whole number {limit}")
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
