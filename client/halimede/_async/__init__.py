"""The client and its transports, written once: `client/unasync.py` generates the synchronous folder."""
