"""Whether a model writes small functions that work: problems of our own, run in a process with limits."""
