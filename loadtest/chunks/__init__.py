"""A long prompt among running streams, over the sizes of its chunks: `python -m loadtest.chunks`."""
