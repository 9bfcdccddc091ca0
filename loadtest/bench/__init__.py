"""One engine, alone and through Triton, beside transformers: `python -m loadtest.bench`."""
