"""What it takes to start the real tritonserver; nothing here runs inside it."""

from __future__ import annotations


class Refusal(Exception):
    """Why the server was not started, and what to do about it; the message is shown as it is."""
