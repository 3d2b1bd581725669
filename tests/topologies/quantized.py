"""Models with QuantizeLinear and DequantizeLinear around their layers, and with weights stored as integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


def _observed(n: Net, x: str, scale: float = 0.04) -> str:
    """uint8 with zero point 128, and back."""
    grid = (n.scalar(scale), n.const(np.array(128, np.uint8)))
    return n.node("DequantizeLinear", n.node("QuantizeLinear", x, *grid), *grid)


def _int8_weight(n: Net, *shape: int, axis: int = 0) -> str:
    """int8 values with a scale for each index of `axis`, through DequantizeLinear."""
    fan = int(np.prod(shape)) // shape[axis]
    values = n.const(np.clip(n.rng.normal(0, 40, shape), -127, 127).astype(np.int8))
    scales = (n.rng.uniform(0.7, 1.3, shape[axis]) * np.sqrt(2 / fan) / 40).astype(np.float32)
    return n.node("DequantizeLinear", values, n.const(scales), n.const(np.zeros(shape[axis], np.int8)), axis=axis)


def _int32_bias(n: Net, size: int) -> str:
    values = n.const(n.rng.integers(-100, 100, size).astype(np.int32))
    return n.node("DequantizeLinear", values, n.const(np.full(size, 1e-3, np.float32)), axis=0)


@topology(tolerance=0.02)
def qdq_convs() -> ir.Model:
    """Per-channel weights, per-tensor activations, int32 biases: what ONNX Runtime's quantizer writes."""
    n = Net()
    x = _observed(n, n.input("x", "N", 3, 8, 8))
    for width, out in ((3, 32), (32, 48)):
        y = n.node("Conv", x, _int8_weight(n, out, width, 3, 3), _int32_bias(n, out), pads=[1] * 4)
        x = _observed(n, n.relu(y))
    return n.build(n.node("Conv", x, _int8_weight(n, 12, 48, 1, 1), _int32_bias(n, 12)))


@topology(tolerance=0.02)
def qdq_residual() -> ir.Model:
    n = Net()
    x = _observed(n, n.relu(n.conv(_observed(n, n.input("x", "N", 3, 8, 8)), 48)))
    y = n.node("Conv", x, _int8_weight(n, 32, 48, 3, 3), pads=[1] * 4)
    y = n.node("Conv", _observed(n, n.relu(y)), _int8_weight(n, 48, 32, 3, 3), pads=[1] * 4)
    return n.build(n.classifier(_observed(n, n.relu(n.add(x, _observed(n, y))))))


@topology(tolerance=0.02)
def qdq_depthwise() -> ir.Model:
    n = Net()
    x = _observed(n, n.relu(n.conv(n.input("x", "N", 3, 8, 8), 32)))
    x = n.node("Conv", x, _int8_weight(n, 32, 1, 3, 3), group=32, pads=[1] * 4)
    return n.build(n.node("Conv", _observed(n, n.relu(x)), _int8_weight(n, 12, 32, 1, 1)))


@topology(tolerance=0.02)
def qdq_matmul() -> ir.Model:
    """The scales belong to the last axis of a MatMul's weight and to the first of a Gemm's."""
    n = Net()
    x = n.node("MatMul", _observed(n, n.input("x", "N", 6, 40)), _int8_weight(n, 40, 96, axis=1))
    x = n.mean(_observed(n, n.relu(n.add(x, n.small(96)))), 1, keepdims=0)
    return n.build(n.node("Gemm", x, _int8_weight(n, 10, 96), n.small(10), transB=1))


@topology()
def weight_only_int8() -> ir.Model:
    """Only the weights are integers; one scale for each whole tensor."""
    n = Net()
    x = n.input("x", "N", 3, 8, 8)
    for width, out in ((3, 32), (32, 48), (48, 12)):
        values = n.const(n.rng.integers(-127, 128, (out, width, 3, 3)).astype(np.int8))
        weight = n.node("DequantizeLinear", values, n.scalar(0.02 / np.sqrt(width)))
        x = n.relu(n.node("Conv", x, weight, n.small(out), pads=[1] * 4))
    return n.build(n.classifier(x))


@topology()
def weight_only_blocks() -> ir.Model:
    """A scale for each block of 16 rows (opset 21): the blocks lie along the axis that would be pruned."""
    n = Net(21)
    x = n.relu(n.linear(n.input("x", "N", 40), 64))
    values = n.const(n.rng.integers(-127, 128, (64, 48)).astype(np.int8))
    scales = n.const((n.rng.uniform(0.5, 1.5, (4, 48)) * 2e-3).astype(np.float32))
    weight = n.node("DequantizeLinear", values, scales, axis=0, block_size=16)
    return n.build(n.linear(n.relu(n.node("MatMul", x, weight)), 10))


@topology()
def half_precision_weights() -> ir.Model:
    """Weights stored in float16, cast to float32 before use."""
    n = Net()
    x = n.input("x", "N", 3, 8, 8)
    for width, out in ((3, 32), (32, 48)):
        values = n.const((n.rng.standard_normal((out, width, 3, 3)) * np.sqrt(2 / 9 / width)).astype(np.float16))
        x = n.relu(n.node("Conv", x, n.node("Cast", values, to=1), n.small(out), pads=[1] * 4))
    return n.build(n.classifier(x))


@topology(tolerance=0.02)
def dynamically_quantized() -> ir.Model:
    """DynamicQuantizeLinear and MatMulInteger around a float middle: the integer layers stay."""
    n = Net()
    x = n.relu(n.linear(n.input("x", "N", 40), 64))
    quantized, scale, zero = n.nodes("DynamicQuantizeLinear", x, count=3)
    weight = n.const(n.rng.integers(-127, 128, (64, 48)).astype(np.int8))
    total = n.node("Cast", n.node("MatMulInteger", quantized, weight, zero), to=1)
    y = n.mul(total, n.mul(scale, n.scalar(2e-3)))
    return n.build(n.linear(n.relu(n.linear(n.relu(y), 80)), 10))
