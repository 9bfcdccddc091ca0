"""Which recipe fits a memory, and about how fast it is, from published dimensions alone."""
