"""Models of a real size with random weights, int8 through Triton against transformers in fp32."""
