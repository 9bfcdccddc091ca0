"""The models that can be evaluated: a built engine, the numpy reference, a server of the OpenAI API."""
