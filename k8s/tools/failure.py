"""What stops the setup."""

from __future__ import annotations


class SetupFailure(Exception):
    """A tool that could not be had; the message says which, why, and what to do."""
