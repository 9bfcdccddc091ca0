"""The client, written once: `client/unasync.py` makes `halimede/_sync` from this folder."""
