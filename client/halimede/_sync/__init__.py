# Made by client/unasync.py from halimede/_async: change that, then run it.
"""The client, written once: `client/unasync.py` makes `this folder` from this folder."""
