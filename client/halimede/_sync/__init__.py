# Generated from halimede/_async by client/unasync.py: change the source and run it again.
"""The client and its transports, written once: `client/unasync.py` generates the synchronous folder."""
