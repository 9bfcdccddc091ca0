"""The launcher's parts: they start and stop the real tritonserver, and never run inside it."""

from __future__ import annotations


class Refusal(Exception):
    """Why the server was not started, and what to do about it; the message is shown unchanged."""
