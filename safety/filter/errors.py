"""What can go wrong for a reason that lies outside this program."""

from __future__ import annotations


class FilterError(Exception):
    """Input, output or settings that cannot be used; the text names the file, the place and the reason."""


class Misuse(FilterError):
    """An argument that no input could make right."""
