"""Models, rows and peers, measured side by side in one run: `python -m loadtest.bench`."""
