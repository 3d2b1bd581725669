"""What ONNX operators mean: MACs, integer kernels, targets, opset rules, evaluation. Knowledge as data, used by every pass."""
