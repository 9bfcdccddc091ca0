"""The errors of a build.

Every message except that of Unbuilt is one line that names the cause and, if there is one, the next step.
"""

from __future__ import annotations


class BuildError(Exception):
    """The build failed although the user's input was well-formed."""

    exit_code = 1


class BadInput(BuildError):
    """The command line, the recipe or the checkpoint is wrong."""

    exit_code = 2


class Unsupported(BadInput):
    """The input is sound, but nothing here can build it."""


class HubUnreachable(BuildError):
    """A checkpoint is on the hub, and the hub cannot be reached."""


class Unbuilt(BuildError):
    """The graphs passed every check that needs no GPU, but a plan needs one; the message is a report."""

    exit_code = 3
