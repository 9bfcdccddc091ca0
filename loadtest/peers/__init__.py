"""The engine beside what a user would pick instead on a CPU: `python -m loadtest.peers`."""
