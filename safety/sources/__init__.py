"""The models that can be evaluated: a built engine, the numpy reference, a server of the OpenAI API."""

from safety.sources.opening import REPOSITORY, Options, open_model

__all__ = ["REPOSITORY", "Options", "open_model"]
