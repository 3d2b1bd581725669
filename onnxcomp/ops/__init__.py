"""What ONNX operators mean, as data that every pass uses: kernels, targets, opset rules, MACs, evaluation."""
