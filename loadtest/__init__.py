"""Load on a server of this machine, and what it shows. `python -m loadtest.bench` is the benchmark."""
