"""From a client's inputs to token ids: the work of the tokenizer step."""
