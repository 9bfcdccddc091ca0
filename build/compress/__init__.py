"""Compression: chains of passes over checkpoints, each step measured against its parent."""
