"""What computes a step: our kernels, ONNX Runtime and TensorRT, and how they are opened."""
