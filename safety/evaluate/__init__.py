"""Bias, harm, refusals and facts, from the log-probabilities and the answers of a model."""
