"""The one error of the launcher: why the server was not started, and what to do about it."""

from __future__ import annotations


class Refusal(Exception):
    """The message names the fault and the remedy, and is shown as it is."""
