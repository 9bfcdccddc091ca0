"""What both tools are asked to do, as profiles of ours."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from loadtest.artifacts import MODEL
from loadtest.traffic.profile import Profile, profile_of

TITLES = {"closed": "closed loop", "open": "open loop"}
TOOLS = ("load", "aiperf")

_PROFILE = """name = "crosscheck-{load}-{repeat}"
duration_s = {duration_s}
warmup_s = 0
seed = {seed}

[arrivals]
{arrivals}

[[mix]]
name = "crosscheck"
protocol = "http"
task = "complete"
model = "{model}"
prompt_tokens = {{ constant = {tokens_in} }}
output_tokens = {{ constant = {tokens_out} }}
temperature = 0.0
ignore_eos = true
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """`duration_s` is how long requests are begun in one run; those that are open then are answered still.
    `users` are of the closed loop, `rate_per_s` of the Poisson arrivals of the open one."""

    loads: tuple[str, ...] = tuple(TITLES)
    repeats: int = 5
    duration_s: int = 20
    users: int = 4
    rate_per_s: float = 1.0
    tokens_in: int = 128
    tokens_out: int = 64
    model: str = MODEL

    def words(self, load: str) -> str:
        how = f"{self.users} users" if load == "closed" else f"Poisson arrivals, {self.rate_per_s:g}/s"
        return f"{TITLES[load]}, {how}"

    def toml(self, load: str, repeat: int) -> str:
        """The profile of one run: the same requests for both tools, others in each repeat."""
        closed = f'kind = "closed"\nusers = {self.users}'
        return _PROFILE.format(
            load=load,
            repeat=repeat,
            duration_s=self.duration_s,
            seed=1000 * (repeat + 1) + tuple(TITLES).index(load),
            arrivals=closed if load == "closed" else f'kind = "poisson"\nrate_per_s = {self.rate_per_s}',
            model=self.model,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
        )

    def profile(self, load: str, repeat: int) -> Profile:
        return profile_of(tomllib.loads(self.toml(load, repeat)))

    def order(self, repeat: int) -> tuple[str, ...]:
        """Which tool goes first changes with each repeat: a drift of the machine favours neither."""
        return TOOLS if repeat % 2 == 0 else TOOLS[::-1]
