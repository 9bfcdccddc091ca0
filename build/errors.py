"""What a build can end with, other than an engine.

Every message but that of Unbuilt is one line that names the thing at fault and, where there is one, the next
step.
"""

from __future__ import annotations


class BuildError(Exception):
    """The build could not be carried through; the user's input was well-formed."""

    exit_code = 1


class BadInput(BuildError):
    """The command line, the recipe or the checkpoint is at fault."""

    exit_code = 2


class Unsupported(BadInput):
    """The input is sound, but nothing here can build it."""


class HubUnreachable(BuildError):
    """A checkpoint is on the hub, and the hub cannot be reached from here."""


class Unbuilt(BuildError):
    """The graphs passed every check that needs no GPU, but a plan needs one; the message is a report."""

    exit_code = 3
