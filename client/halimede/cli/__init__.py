"""The command `halimede`."""

from halimede.cli.app import app

__all__ = ["app"]
