"""What the engine decides: values in, values out, with the standard library alone."""
